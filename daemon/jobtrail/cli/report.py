"""`jobtrail report JOB`: what a job used of what it had, why it ended, and what to do about it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.daemon_client import first_answer
from jobtrail.cli.job_argument import JobId
from jobtrail.cli.output import console, error_console, print_json
from jobtrail.cli.report_page import print_report
from jobtrail.cli.whom import Whom, asks_daemon, whom
from jobtrail.client import ApiError, Client, Unreachable
from jobtrail.domain.job_report import JobReport
from jobtrail.domain.job_report_making import make_report

T = TypeVar("T")
_CODES = {400: exit_codes.USAGE, 404: exit_codes.NOT_FOUND}


@asks_daemon
def run_report(
    context: typer.Context,
    job_id: JobId,
    run: Annotated[int | None, typer.Option(min=1, help="which run of a requeued job; default: the newest")] = None,
    cluster: Annotated[str | None, typer.Option(help="in this cluster")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="write one page of HTML with the job's time lines; - prints it")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=40, max=500, help="columns; default: the terminal's, 100 without one")
    ] = None,
) -> None:
    """What a job used, why it ended, and what to do about it."""
    if as_json and html is not None:
        raise typer.BadParameter("--json and --html exclude each other")
    asked = _Asked(whom(context), job_id, run=run, cluster=cluster)
    if html is not None:
        _write(html, asked.page())
        return
    report = asked.report()
    if as_json:
        print_json(report)
        return
    out = console()
    out.width = width or (out.width if sys.stdout.isatty() else 100)
    out.soft_wrap = False
    print_report(out, report)


class _Asked:
    """One question, put to whom the caller names, else to the daemon of this machine, else to the database."""

    def __init__(self, to: Whom, job_id: str, *, run: int | None, cluster: str | None) -> None:
        self._whom, self._job_id, self._run, self._cluster = to, job_id, run, cluster

    def report(self) -> JobReport:
        """The figures."""
        told = self._of_daemon(lambda client: client.report(self._job_id, run=self._run, cluster=self._cluster))
        if told is None:
            return self._of_database(lines=False)[0]
        try:
            return msgspec.convert(told.summary, JobReport)
        except msgspec.ValidationError as error:
            _fail(f"the daemon's report is of another form than this command's: {error}", exit_codes.FAILED)

    def page(self) -> bytes:
        """The page."""
        page = self._of_daemon(lambda client: client.report_page(self._job_id, run=self._run, cluster=self._cluster))
        if page is not None:
            return page
        from jobtrail.adapters import job_html

        report, timeline = self._of_database(lines=True)
        return job_html.render(report, timeline, datetime.now(UTC)).encode()

    def _of_daemon(self, question: Callable[[Client], Awaitable[T]]) -> T | None:
        """None where no daemon answers that has a database."""
        try:
            return asyncio.run(first_answer(self._whom.places, Client, question))
        except ApiError as error:
            problem = self._whom.words(error)
            if error.status != 503:
                _fail(problem, _CODES.get(error.status, exit_codes.FAILED))
        except Unreachable as error:
            problem = self._whom.unreachable(error)
        if not self._whom.database_url:
            _fail(problem, exit_codes.UNREACHABLE)
        return None

    def _of_database(self, *, lines: bool) -> tuple[JobReport, Any]:
        from jobtrail.adapters.postgres import PostgresReader
        from jobtrail.cli import database

        config = self._whom.config

        async def asked(pool: Any) -> Any:
            reader = PostgresReader(pool, timeout_seconds=config.database.timeout_seconds)
            detail = await reader.show_job(self._job_id, run=self._run, cluster=self._cluster)
            now = datetime.now(UTC)
            timeline = await reader.job_timeline(detail, now=now) if lines else None
            report = make_report(
                detail.job,
                sentence=detail.sentence,
                nodes=detail.nodes,
                gpus=detail.gpus,
                other_runs=detail.other_runs,
                now=now,
            )
            return report, timeline

        found: tuple[JobReport, Any] = database.ask(config, asked)
        return found


def _write(target: str, page: bytes) -> None:
    """To a file that only its owner may read: the page tells of a job."""
    if target == "-":
        sys.stdout.buffer.write(page)
        sys.stdout.flush()
        return
    path = Path(target)
    try:
        path.touch(mode=0o600)
        path.write_bytes(page)
    except OSError as error:
        _fail(f"{target} cannot be written: {error.strerror}", exit_codes.FAILED)
    error_console().print(f"jobtrail: wrote {target}, {len(page) / 1024:.0f} KiB", markup=False)


def _fail(message: str, code: int) -> NoReturn:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
    raise typer.Exit(code)
