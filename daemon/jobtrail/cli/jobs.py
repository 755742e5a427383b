"""`jobtrail jobs list|show`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from jobtrail.cli.database import ask
from jobtrail.cli.output import UNKNOWN, clean, console, duration, moment, print_json, size, table
from jobtrail.cli.settings import settings
from jobtrail.cli.times import moment as parse_moment
from jobtrail.domain.states import State

application = typer.Typer(help="Jobs as the trail tells them.", no_args_is_help=True, add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
OPEN_STATES = frozenset({State.PENDING, State.RUNNING})


@application.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="only jobs in this state")] = None,
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
    from jobtrail.adapters.postgres import JobFilter, PostgresReader

    config = settings(context)
    wanted = JobFilter(
        state=None if state is None else state.value,
        user=user,
        account=account,
        partition=partition,
        node=node,
        cluster=cluster,
        since=parse_moment(since),
        until=parse_moment(until),
    )
    page = ask(
        config,
        lambda pool: PostgresReader(pool, timeout_seconds=config.database.timeout_seconds).list_jobs(
            wanted, limit=limit, offset=offset
        ),
    )
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
    shown = WIDE if out.width >= WIDE_COLUMNS else NARROW
    out.print(table("", shown, [[COLUMNS[name](job) for name in shown] for job in jobs]))


def _exit(job: dict[str, Any]) -> str:
    if job["exit_signal"] is not None:
        return f"signal {job['exit_signal']}"
    return UNKNOWN if job["exit_code"] is None else str(job["exit_code"])


def _ran_seconds(job: dict[str, Any]) -> float | None:
    """Wall seconds so far of a running job, in all of an ended one; None when an end of it is unknown."""
    start: datetime | None = job["start_time"]
    end: datetime | None = datetime.now(UTC) if job["state"] in OPEN_STATES else job["end_time"]
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())


COLUMNS: Mapping[str, Callable[[dict[str, Any]], str]] = MappingProxyType(
    {
        "job": lambda job: str(job["job_id"]),
        "run": lambda job: str(job["run"]),
        "cluster": lambda job: str(job["cluster_name"]),
        "user": lambda job: job["user_name"] or UNKNOWN,
        "name": lambda job: job["job_name"] or UNKNOWN,
        "state": lambda job: str(job["state"]),
        "verdict": lambda job: job["verdict"] or UNKNOWN,
        "exit": _exit,
        "started": lambda job: moment(job["start_time"]),
        "ran": lambda job: duration(_ran_seconds(job)),
        "cpu": lambda job: duration(job["cpu_seconds"]),
        "peak memory": lambda job: size(job["memory_peak_bytes"]),
    }
)
WIDE = tuple(COLUMNS)
NARROW = ("job", "user", "name", "state", "exit", "ran", "cpu", "peak memory")
WIDE_COLUMNS = 150


@application.command("show")
def show_job(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="slurm-123, 123 (the same), or local-…")],
    run: Annotated[int | None, typer.Option(min=1, help="which run of a requeued job; default: the newest")] = None,
    cluster: Annotated[str | None, typer.Option(help="in this cluster")] = None,
    as_json: Json = False,
) -> None:
    """One job: how it ended and what it used."""
    from jobtrail.adapters.postgres import PostgresReader

    config = settings(context)
    detail = ask(
        config,
        lambda pool: PostgresReader(pool, timeout_seconds=config.database.timeout_seconds).show_job(
            job_id, run=run, cluster=cluster
        ),
    )
    if as_json:
        print_json(msgspec.to_builtins(detail, enc_hook=str))
        return
    out = console()
    for name, value in _facts(detail.job):
        out.print(clean(f"{name:<14}{value}"))
    if len(detail.nodes) > 1:
        out.print()
        columns = ("node", "started", "ended", "cpu", "peak memory")
        out.print(table("", columns, [_node_line(node) for node in detail.nodes]))
    if detail.other_runs:
        others = ", ".join(f"{name} run {number}" for name, number in detail.other_runs)
        out.print(clean(f"\nother runs of this job id: {others}"))


def _node_line(node: dict[str, Any]) -> tuple[str, ...]:
    return (
        node["node"],
        moment(node["started_at"]),
        moment(node["ended_at"]),
        duration(node["cpu_seconds"]),
        size(node["memory_peak_bytes"]),
    )


def _facts(job: dict[str, Any]) -> list[tuple[str, str]]:
    ran, cpus, cpu = _ran_seconds(job), job["cpus_allocated"], job["cpu_seconds"]
    efficiency = "" if not ran or not cpus or cpu is None else f", {100 * cpu / (ran * cpus):.0f} % of {cpus} CPUs"
    oom_kills = f", out-of-memory kills: {job['oom_kills']}" if job["oom_kills"] else ""
    return [
        ("job", f"{job['job_id']} run {job['run']} in cluster {job['cluster_name']}"),
        ("name", job["job_name"] or UNKNOWN),
        ("user", f"{job['user_name'] or UNKNOWN}, account {job['account'] or UNKNOWN}"),
        ("where", f"{', '.join(job['nodes'] or ()) or UNKNOWN}, partition {job['partition'] or UNKNOWN}"),
        ("started", moment(job["start_time"])),
        ("ended", _ended(job)),
        ("ran", duration(ran)),
        ("outcome", _outcome(job)),
        ("cpu", f"{duration(cpu)}{efficiency}{_source(job, 'cpu')}"),
        ("peak memory", f"{size(job['memory_peak_bytes'])}{oom_kills}"),
        ("read, written", f"{size(job['io_read_bytes'])}, {size(job['io_write_bytes'])}"),
        ("coverage", _coverage(job)),
        ("correlation", job["correlation_id"]),
    ]


def _ended(job: dict[str, Any]) -> str:
    return "still running" if job["state"] in OPEN_STATES else moment(job["end_time"])


def _outcome(job: dict[str, Any]) -> str:
    """How it ended in words; an epilog's exit code 0 is no proof of success."""
    if job["state"] in OPEN_STATES:
        return str(job["state"])
    if job["state"] == State.ENDED:
        return "ended, outcome unknown: the epilog reports the same for a success, a cancel and a time limit"
    certainty = "" if job["state_confirmed"] else " (by the epilog, not confirmed)"
    how = {"out_of_memory": ", out of memory", "killed_by_signal": f", killed by {_exit(job)}"}.get(job["verdict"], "")
    code = f", exit code {job['exit_code']}" if job["exit_code"] is not None else ""
    return f"{job['state']}{how}{code}{certainty}"


def _source(job: dict[str, Any], name: str) -> str:
    source = (job.get("usage_sources") or {}).get(name)
    return f" (by {source.replace('_', ' ')})" if source else ""


def _coverage(job: dict[str, Any]) -> str:
    ratio = job["coverage_ratio"]
    source = (job.get("usage_sources") or {}).get("usage", "")
    samples = f"samples: {job['sample_count'] or 0}" + (f" from {source.replace('_', ' ')}" if source else "")
    return samples if ratio is None else f"{samples}, last at {100 * ratio:.0f} % of the run"
