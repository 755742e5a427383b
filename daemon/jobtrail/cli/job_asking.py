"""Asks of jobs and their trail: whom the caller names, else the database where the caller knows one, else a daemon.

Ordinary users may not read the settings, which can hold a password of the database; the daemon lets them read their own
jobs on the socket for all users.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec
import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.daemon_client import first_answer
from jobtrail.cli.database import ask
from jobtrail.cli.output import error_console
from jobtrail.cli.whom import whom
from jobtrail.client import ApiError, Client, Unreachable
from jobtrail.core.ports import Row
from jobtrail.core.query_ports import JobDetail, JobFilter, JobList

if TYPE_CHECKING:
    from jobtrail.adapters.postgres import PostgresReader

T = TypeVar("T")
_CODES = {400: exit_codes.USAGE, 404: exit_codes.NOT_FOUND, 503: exit_codes.UNREACHABLE}
_TIMES = ("_at", "_time", "_not_before")
"""How the names of columns end that hold a time."""


class Asking:
    """One command's questions."""

    def __init__(self, context: typer.Context) -> None:
        self._whom = whom(context)

    def jobs(self, wanted: JobFilter, *, limit: int, offset: int) -> JobList:
        """Runs, newest first."""
        if self._whom.database_url:
            return self._of_database(lambda reader: reader.list_jobs(wanted, limit=limit, offset=offset))
        words = {name: value for name, value in msgspec.structs.asdict(wanted).items() if name != "uid"}
        page = self._of_daemon(lambda client: client.jobs(**words, limit=limit, offset=offset))
        return JobList(jobs=[msgspec.structs.asdict(job) for job in page.jobs], total=page.total)

    def job(self, job_id: str, *, run: int | None, cluster: str | None) -> JobDetail:
        """One run, the newest unless `run` names one."""
        if self._whom.database_url:
            return self._of_database(lambda reader: reader.show_job(job_id, run=run, cluster=cluster))
        # The answer as it is, since Report has not all of what is shown here.
        path, words = f"/v1/jobs/{job_id}/report", {"run": run, "cluster": cluster}
        told = self._of_daemon(lambda client: client.ask("GET", path, dict[str, Any], words=words))
        return JobDetail(
            job=_row(told["job"]),
            sentence=told["sentence"],
            efficiency=told["efficiency"],
            nodes=[_row(node) for node in told["nodes"]],
            gpus=[_row(gpu) for gpu in told["gpus"]],
            benchmarks=[_row(one) for one in told["benchmarks"]],
            other_runs=[(other["cluster_name"], other["run"]) for other in told["other_runs"]],
        )

    def trail(self, job_id: str, *, run: int | None, cluster: str | None, limit: int) -> list[Row]:
        """Events of a job, oldest first; of more than `limit` the newest."""
        if self._whom.database_url:
            return self._of_database(lambda reader: reader.audit_log(job_id, run=run, cluster=cluster, limit=limit))
        events = self._of_daemon(lambda client: client.job_audit(job_id, run=run, cluster=cluster, limit=limit))
        return [msgspec.structs.asdict(event) for event in events]

    def _of_database(self, question: Callable[[PostgresReader], Awaitable[T]]) -> T:
        from jobtrail.adapters.postgres import PostgresReader

        config = self._whom.config
        seconds = config.database.timeout_seconds
        return ask(config, lambda pool: question(PostgresReader(pool, timeout_seconds=seconds)))

    def _of_daemon(self, question: Callable[[Client], Awaitable[T]]) -> T:
        try:
            return asyncio.run(first_answer(self._whom.places, Client, question))
        except ApiError as error:
            _fail(self._whom.words(error), _CODES.get(error.status, exit_codes.FAILED))
        except Unreachable as error:
            _fail(self._whom.unreachable(error), exit_codes.UNREACHABLE)


def _row(told: Row) -> Row:
    """A row of the API's JSON with its times as times."""
    return {
        name: datetime.fromisoformat(value) if isinstance(value, str) and name.endswith(_TIMES) else value
        for name, value in told.items()
    }


def _fail(message: str, code: int) -> NoReturn:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
    raise typer.Exit(code)
