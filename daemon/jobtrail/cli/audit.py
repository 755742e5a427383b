"""`jobtrail audit log|rebuild`, and the names of what stands in `audit_verify` and `audit_orders`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from jobtrail.cli import audit_orders, audit_verify, exit_codes
from jobtrail.cli.database import ask
from jobtrail.cli.job_argument import JobId
from jobtrail.cli.job_asking import Asking
from jobtrail.cli.output import UNKNOWN, console, error_console, moment, print_json, table
from jobtrail.cli.settings import settings
from jobtrail.cli.whom import asks_daemon
from jobtrail.domain.phrases import counted

if TYPE_CHECKING:
    from jobtrail.adapters.postgres import RebuildReport
    from jobtrail.adapters.postgres.pool import Pool

application = typer.Typer(
    help="The audit trail: of a job, whether it is whole, orders on it.", no_args_is_help=True, add_completion=False
)

application.command("verify")(audit_verify.verify)
application.command("export")(audit_verify.export)
application.command("evidence")(audit_verify.evidence)
application.command("keygen")(audit_orders.keygen)
application.command("erase")(audit_orders.erase)
application.command("prune")(audit_orders.prune)
application.command("hold")(audit_orders.hold)

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@application.command("log")
@asks_daemon
def log(
    context: typer.Context,
    job_id: JobId,
    run: Annotated[int | None, typer.Option(min=1, help="only this run")] = None,
    cluster: Annotated[str | None, typer.Option(help="in this cluster")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="the newest so many")] = 100,
    as_json: Json = False,
) -> None:
    """Every recorded change of a job, oldest first."""
    rows = Asking(context).trail(job_id, run=run, cluster=cluster, limit=limit)
    if as_json:
        print_json(msgspec.to_builtins(rows, enc_hook=str))
        return
    if not rows:
        error_console().print(f"jobtrail: the trail has nothing about {job_id}", style="red", markup=False)
        raise typer.Exit(exit_codes.NOT_FOUND)
    columns = ("when", "run", "what", "by", "state after", "correlation")
    console().print(table("", columns, [_line(row) for row in rows]))


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    snapshot = row["job_snapshot"] or {}
    event = row["event"] or {}
    decided = event.get("baseline") or {}  # a person's word on a benchmark; `changed_by` is what it came through
    what = row["event_kind"]  # stands when the payload was erased
    return (
        moment(row["changed_at"]),
        UNKNOWN if row["run"] is None else str(row["run"]),
        f"{what} ({decided['decision']})" if "decision" in decided else what,
        decided.get("by") or _by(row),
        snapshot.get("state", UNKNOWN),
        str(row["correlation_id"] or UNKNOWN),
    )


def _by(row: dict[str, Any]) -> str:
    """The person, what they did it with, and who sent it as the daemon knows."""
    if row["person"] is None:
        return row["changed_by"] or UNKNOWN
    return f"{row['person']} ({row['changed_by']}, {row['sent_by']})"


@application.command("rebuild")
def rebuild(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="compare only; exit 1 when something differs")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="rewrite without asking")] = False,
    as_json: Json = False,
) -> None:
    """Recompute jobs and benchmarks from the trail.

    With --check they are compared, else rewritten; writers wait meanwhile.
    """
    config = settings(context)
    if not check and not yes:
        typer.confirm("rewrite all jobs and benchmarks from the trail? Writers wait meanwhile", abort=True)
    with error_console().status("reading the trail") as status:
        report = ask(
            config,
            lambda pool: _rebuild(
                pool, check=check, progress=lambda runs: status.update(f"{counted(runs, 'run')} recomputed")
            ),
        )
    if as_json:
        print_json(msgspec.to_builtins(report, enc_hook=str))
    else:
        _print_report(report, check=check)
    if check and not report.equal:
        raise typer.Exit(exit_codes.FAILED)


async def _rebuild(pool: Pool, *, check: bool, progress: Any) -> RebuildReport:
    from jobtrail.adapters.postgres import rebuild as rewrite
    from jobtrail.adapters.postgres import rebuild_check
    from jobtrail.adapters.postgres.pool import translated

    with translated():
        connection = await pool.acquire()
        try:
            return await (rebuild_check if check else rewrite)(connection, progress)
        finally:
            await pool.release(connection)


def _print_report(report: RebuildReport, *, check: bool) -> None:
    out = console()
    one_value = report.differing == 1
    verb = (
        f"differ{'s' if one_value else ''} from"
        if check
        else f"differed from, and now follow{'s' if one_value else ''},"
    )
    things = f"{counted(report.runs, 'run')} and {counted(report.benchmarks, 'benchmark')}"
    recomputed = f"{things} recomputed from {counted(report.events, 'event')}"
    out.print(f"{recomputed}; {counted(report.differing, 'value')} {verb} the trail")
    if report.differences:
        columns = ("job", "run", "node", "field", "stored", "by the trail")
        lines = [
            (
                one.job_id or f"benchmark {one.benchmark}",
                UNKNOWN if one.run is None else str(one.run),
                one.node or "",
                one.field,
                str(one.stored),
                str(one.from_trail),
            )
            for one in report.differences
        ]
        out.print(table("", columns, lines))
    for run, reason in report.unverifiable.items():
        out.print(f"not recomputed: {run}: {reason}", markup=False)
