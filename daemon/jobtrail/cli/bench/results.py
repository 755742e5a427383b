"""`jobtrail bench runs|result|compare|leaderboard` and `accept|pin|unpin`: what benchmarks gave."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from jobtrail.cli.bench import result_pages
from jobtrail.cli.bench.asking import Row, ask, tell
from jobtrail.cli.output import clean, console, print_json
from jobtrail.cli.times import moment as parse_moment
from jobtrail.cli.whom import asks_daemon, whom
from jobtrail.core.benchmarks.ports import RANK_COLUMNS, RUN_COLUMNS, RunFilter
from jobtrail.domain.benchmarks.metrics import default_stat
from jobtrail.domain.benchmarks.report import Decision, Status

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Csv = Annotated[bool, typer.Option("--csv", help="print CSV")]
Uid = Annotated[str, typer.Argument(metavar="UID", help="a run's UUID, or its first 8 or more characters")]
Note = Annotated[str | None, typer.Option("--note", help="why; kept in the audit trail")]
Recipe = Annotated[str | None, typer.Option(help="only this recipe's")]
Model = Annotated[str | None, typer.Option(help="only with this model")]
Hardware = Annotated[str | None, typer.Option(help="only with this short fingerprint")]


class VerdictWord(StrEnum):
    """What a run may be against the runs before it."""

    OK = "ok"
    SUSPECT = "suspect"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    SUSPECT_IMPROVEMENT = "suspect_improvement"
    INSUFFICIENT = "insufficient"


@asks_daemon
def runs_command(
    context: typer.Context,
    recipe: Recipe = None,
    model: Model = None,
    status: Annotated[Status | None, typer.Option(help="only runs that went so")] = None,
    tool: Annotated[str | None, typer.Option(help="only those of this tool, such as vllm")] = None,
    job: Annotated[str | None, typer.Option(metavar="JOB", help="only those of this job: slurm-123, or 123")] = None,
    user: Annotated[str | None, typer.Option(help="only this user's")] = None,
    hardware: Hardware = None,
    verdict: Annotated[VerdictWord | None, typer.Option(help="only those with this verdict")] = None,
    since: Annotated[str | None, typer.Option(help="that began after: 2026-11-21, 2026-11-21T08:00, 90m, 7d")] = None,
    until: Annotated[str | None, typer.Option(help="that began before; same forms")] = None,
    sort: Annotated[
        str, typer.Option(help="a column, or a metric such as request_latency.p90; - before it: largest first")
    ] = "-started_at",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="at most this many")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="leave out this many of the first")] = 0,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Runs of benchmarks, newest first."""
    _one_form(as_json=as_json, as_csv=as_csv)
    wanted = RunFilter(
        recipe=recipe, model=model, status=status, tool=tool, job_id=_job_id(job), user_name=user, hardware=hardware,
        verdict=verdict, since_us=_time_us(since, "--since"), until_us=_time_us(until, "--until"), sort=sort,
    )  # fmt: skip
    words = {
        "recipe": recipe, "model": model, "status": status, "tool": tool, "job_id": wanted.job_id, "user": user,
        "hardware": hardware, "verdict": verdict, "since": _time_text(since, "--since"),
        "until": _time_text(until, "--until"), "sort": sort,
        "limit": limit, "offset": offset,
    }  # fmt: skip

    async def from_database(reader: Any) -> Any:
        rows, total = await reader.list_runs(wanted, limit=limit, offset=offset)
        return {"runs": rows, "total": total}

    page = ask(whom(context), "/runs", words, from_database)
    if as_json:
        print_json(page)
    elif as_csv:
        _print_csv(page["runs"], RUN_COLUMNS)
    else:
        result_pages.print_runs(console(), page["runs"])
        shown = offset + len(page["runs"])
        if shown < page["total"]:
            console().print(f"{shown} of {page['total']}; more with --limit or --offset", style="dim")


@asks_daemon
def result_command(context: typer.Context, uid: Uid, as_json: Json = False) -> None:
    """One run of a benchmark, with its numbers.

    What ran where, how it went and why, its energy, jobs and verdicts.
    """
    run = ask(whom(context), f"/runs/{uid}", {}, lambda reader: reader.show_run(uid))
    if as_json:
        print_json(run)
    else:
        result_pages.print_run(console(), run)


@asks_daemon
def compare_command(
    context: typer.Context,
    one: Annotated[str, typer.Argument(metavar="A", help="a run's UUID, or a beginning of it")],
    other: Annotated[str, typer.Argument(metavar="B", help="the run that is held against it")],
    as_json: Json = False,
) -> None:
    """Two runs side by side, and what changed.

    Of each number, whether it is better or worse, and whether the change is more than noise.
    """
    words = {"a": one, "b": other}
    found = ask(whom(context), "/compare", words, lambda reader: reader.compare(one, other))
    if as_json:
        print_json(found)
    else:
        result_pages.print_comparison(console(), found)


@asks_daemon
def leaderboard_command(
    context: typer.Context,
    metric: Annotated[str, typer.Option(help="a number; docs/benchmark-formats.md names those of files")] = (
        "output_token_throughput"
    ),
    stat: Annotated[str | None, typer.Option(help="value, mean, p50, p99 …; default: what runs are judged by")] = None,
    recipe: Recipe = None,
    model: Model = None,
    hardware: Hardware = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="at most this many")] = 20,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """The best valid run of each recipe, model and hardware."""
    _one_form(as_json=as_json, as_csv=as_csv)
    chosen = stat or default_stat(metric)
    wanted = RunFilter(recipe=recipe, model=model, hardware=hardware)
    words = {
        "metric": metric, "stat": chosen, "recipe": recipe, "model": model, "hardware": hardware, "limit": limit
    }  # fmt: skip

    async def from_database(reader: Any) -> Any:
        rows = await reader.leaderboard(metric, chosen, wanted, limit=limit)
        return {"metric": metric, "stat": chosen, "runs": rows}

    board = ask(whom(context), "/leaderboard", words, from_database)
    if as_json:
        print_json(board)
    elif as_csv:
        _print_csv(board["runs"], RANK_COLUMNS)
    else:
        result_pages.print_leaderboard(console(), board)


@asks_daemon
def accept_command(context: typer.Context, uid: Uid, note: Note = None) -> None:
    """Take a run's regression for the new normal.

    It then counts in what later runs are held against.
    """
    _decide(context, uid, Decision.ACCEPT, note)


@asks_daemon
def pin_command(context: typer.Context, uid: Uid, note: Note = None) -> None:
    """Hold later runs against this one as well.

    Until another is pinned, or this one unpinned.
    """
    _decide(context, uid, Decision.PIN, note)


@asks_daemon
def unpin_command(context: typer.Context, uid: Uid, note: Note = None) -> None:
    """Hold later runs against this one no longer."""
    _decide(context, uid, Decision.UNPIN, note)


def _decide(context: typer.Context, uid: str, decision: Decision, note: str | None) -> None:
    body: Row = {"decision": decision, **({} if note is None else {"note": note})}
    receipt = tell(whom(context, writes=True), f"/runs/{uid}/decisions", body)
    console().print(clean(f"recorded as event {receipt['event_id']}: {decision} {uid}"))


def _one_form(*, as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")


def _job_id(job: str | None) -> str | None:
    return f"slurm-{job}" if job is not None and job.isdecimal() else job


def _time_us(text: str | None, option: str) -> int | None:
    moment = parse_moment(text, option)
    return None if moment is None else int(moment.timestamp() * 1_000_000)


def _time_text(text: str | None, option: str) -> str | None:
    moment = parse_moment(text, option)
    return None if moment is None else moment.isoformat()


def _print_csv(rows: list[Row], columns: Sequence[str]) -> None:
    from jobtrail.adapters.http.csv_page import as_csv

    sys.stdout.write(as_csv(rows, columns))
