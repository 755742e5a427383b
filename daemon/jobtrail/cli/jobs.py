"""`jobtrail jobs list|show`; what is written of jobs stands in `job_writes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from jobtrail.cli import job_page, job_writes
from jobtrail.cli.job_argument import JobId
from jobtrail.cli.job_asking import Asking
from jobtrail.cli.job_page import exit_text, is_outcome_unknown, ran_seconds
from jobtrail.cli.output import UNKNOWN, clean, console, duration, moment, print_json, size, table
from jobtrail.cli.times import moment as parse_moment
from jobtrail.cli.whom import asks_daemon
from jobtrail.core.query_ports import JobDetail, JobFilter
from jobtrail.domain.states import State, Verdict

application = typer.Typer(
    help="Jobs: lists, one of them, and jobs kept by hand.", no_args_is_help=True, add_completion=False
)

application.command("create")(job_writes.create)
application.command("amend")(job_writes.amend)
application.command("withdraw")(job_writes.withdraw)

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@application.command("list")
@asks_daemon
def list_jobs(
    context: typer.Context,
    state: Annotated[
        State | None, typer.Option(metavar="STATE", help=f"only jobs in this state: {', '.join(State)}")
    ] = None,
    user: Annotated[str | None, typer.Option(help="only this user's")] = None,
    account: Annotated[str | None, typer.Option(help="only this account's")] = None,
    partition: Annotated[str | None, typer.Option(help="only in this partition")] = None,
    node: Annotated[str | None, typer.Option(help="only jobs that ran on this node")] = None,
    cluster: Annotated[str | None, typer.Option(help="only in this cluster")] = None,
    since: Annotated[
        str | None, typer.Option(help="that ran after: 2026-11-21, 2026-11-21T08:00, 90m, 12h, 7d")
    ] = None,
    until: Annotated[str | None, typer.Option(help="that ran before; same forms")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="at most this many")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="leave out this many of the newest")] = 0,
    as_json: Json = False,
) -> None:
    """Jobs, newest first."""
    wanted = JobFilter(
        state=None if state is None else state.value,
        user=user,
        account=account,
        partition=partition,
        node=node,
        cluster=cluster,
        since=parse_moment(since, "--since"),
        until=parse_moment(until, "--until"),
    )
    page = Asking(context).jobs(wanted, limit=limit, offset=offset)
    if as_json:
        print_json(msgspec.to_builtins(page, enc_hook=str))
        return
    print_jobs(console(), page.jobs)
    shown = offset + len(page.jobs)
    if shown < page.total:
        console().print(f"{shown} of {page.total}; more with --limit or --offset", style="dim")


def print_jobs(out: Console, jobs: list[dict[str, Any]]) -> None:
    """A table of rows of `jobs`."""
    if not jobs:
        out.print("no jobs match")
        return
    shown = WIDE if out.width >= WIDE_COLUMNS else NARROW if out.width >= NARROW_COLUMNS else NARROWEST
    out.print(table("", shown, [[COLUMNS[name](job) for name in shown] for job in jobs]))


def _state(job: dict[str, Any]) -> str:
    return "ended (outcome unknown)" if is_outcome_unknown(job) else str(job["state"])


def _how(job: dict[str, Any]) -> str:
    """The verdict in words, else the state: what fits where there is no room for both."""
    verdict = job["verdict"]
    return _state(job) if verdict in (None, Verdict.UNKNOWN) else str(verdict).replace("_", " ")


COLUMNS: Mapping[str, Callable[[dict[str, Any]], str]] = MappingProxyType(
    {
        "job": lambda job: str(job["job_id"]),
        "run": lambda job: str(job["run"]),
        "cluster": lambda job: str(job["cluster_name"]),
        "user": lambda job: job["user_name"] or UNKNOWN,
        "name": lambda job: job["job_name"] or UNKNOWN,
        "state": _state,
        "how": _how,
        "verdict": lambda job: job["verdict"] or UNKNOWN,
        "exit": exit_text,
        "started": lambda job: moment(job["start_time"]),
        "ran": lambda job: duration(ran_seconds(job)),
        "cpu": lambda job: duration(job["cpu_seconds"]),
        "peak memory": lambda job: size(job["memory_peak_bytes"]),
    }
)
WIDE = tuple(name for name in COLUMNS if name != "how")
NARROW = ("job", "user", "name", "how", "exit", "ran", "cpu", "peak memory")
NARROWEST = ("job", "how", "ran")
WIDE_COLUMNS, NARROW_COLUMNS = 150, 80


@application.command("show")
@asks_daemon
def show_job(
    context: typer.Context,
    job_id: JobId,
    run: Annotated[int | None, typer.Option(min=1, help="which run of a requeued job; default: the newest")] = None,
    cluster: Annotated[str | None, typer.Option(help="in this cluster")] = None,
    as_json: Json = False,
) -> None:
    """One job: how and why it ended and what it used."""
    detail = Asking(context).job(job_id, run=run, cluster=cluster)
    if as_json:
        print_json(msgspec.to_builtins(detail, enc_hook=str))
        return
    print_job(console(), detail)


def print_job(out: Console, detail: JobDetail) -> None:
    """One job: the sentence, its figures, its nodes, and what each source said of its end."""
    out.print(clean(detail.sentence))
    out.print()
    for name, value in job_page.facts(detail):
        out.print(clean(f"{name:<14}{value}"))
    if lines := job_page.node_lines(detail):
        out.print()
        out.print(table("", job_page.NODE_COLUMNS, lines))
    if gpus := job_page.gpu_lines(detail):
        out.print()
        out.print(table("", job_page.GPU_COLUMNS, gpus))
    if benchmarks := job_page.benchmark_lines(detail):
        out.print()
        out.print(table("", job_page.BENCHMARK_COLUMNS, benchmarks))
    if said := list(job_page.evidence(detail.job)):
        out.print("\nwhat was said of its end")
        for line in said:
            out.print(clean(f"  {line}"))
    if detail.other_runs:
        others = ", ".join(f"{name} run {number}" for name, number in detail.other_runs)
        out.print()
        out.print(clean(f"other runs of this job id: {others}"))
