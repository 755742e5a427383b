"""Applies a batch of events about benchmarks to what is held of their runs, and writes what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from jobtrail.adapters.postgres.benchmark_rows import ReportRows, decision_row, event_columns, report_rows
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import Row, encode
from jobtrail.domain.benchmarks.holding import content_sha256, is_about_benchmarks, job_of, precedence, refusal
from jobtrail.domain.events import Event, EventKind

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

# One lock for all benchmarks: they are few, and two reports of one run must be told apart by whoever comes second.
BENCHMARK_LOCK_CLASS = 19031
HELD_OTHERWISE = "benchmark run {} is held with other contents"


class HeldRun(msgspec.Struct, frozen=True):
    """What tells a run that is held from another report under its uid, and from the same one again."""

    report_sha256: str
    precedence: tuple[bool, int, str]
    job_id: str | None


class BenchmarkFolding:
    """What a batch changes in the benchmark tables. Touches no database."""

    def __init__(self, held: Mapping[str, HeldRun]) -> None:
        self._held = dict(held)
        self.new: dict[str, ReportRows] = {}
        self.told_better: dict[str, Row] = {}  # runs that are held, and who reported them by a better event
        self.recipes: list[Row] = []
        self.decisions: list[Row] = []

    def take(self, event: Event) -> tuple[str | None, str | None]:
        """Apply one event: why it cannot be, and the job it is about."""
        if (reason := refusal(event)) is not None:
            return reason, job_of(event)
        if event.kind is EventKind.BASELINE_DECIDED:
            return None, self._decide(event)
        return self._report(event), job_of(event)

    def _decide(self, event: Event) -> str | None:
        assert event.baseline is not None
        self.decisions.append(decision_row(event))
        held = self._held.get(event.baseline.run_uid)
        return event.job_id or (None if held is None else held.job_id)

    def _report(self, event: Event) -> str | None:
        assert event.benchmark is not None
        run_uid = event.benchmark.run_uid
        offered = HeldRun(content_sha256(event.benchmark), precedence(event), job_of(event))
        held = self._held.get(run_uid)
        if held is not None and held.report_sha256 != offered.report_sha256:
            return HELD_OTHERWISE.format(run_uid)
        rows = report_rows(event)
        if rows.recipe is not None:
            self.recipes.append(rows.recipe)
        if held is not None and held.precedence <= offered.precedence:
            return None
        self._held[run_uid] = offered
        if held is None or run_uid in self.new:
            self.new[run_uid] = rows
        else:
            self.told_better[run_uid] = {"run_uid": run_uid, **event_columns(event)}
        return None


async def load_benchmarks(connection: Connection, events: Sequence[Event]) -> BenchmarkFolding:
    """Lock benchmarks, if any event is about one, and load what is held of these."""
    about = [event for event in events if is_about_benchmarks(event) and refusal(event) is None]
    if not about:
        return BenchmarkFolding({})
    await connection.execute(SQL["jobs_lock"], BENCHMARK_LOCK_CLASS, [0])
    told = [event.benchmark or event.baseline for event in about]
    wanted = sorted({one.run_uid for one in told if one is not None})
    rows = await connection.fetch(SQL["benchmark_runs_held"], wanted)
    return BenchmarkFolding(
        {
            row["run_uid"]: HeldRun(
                row["report_sha256"], (not row["from_job"], row["reported_us"], row["event_id"]), row["job_id"]
            )
            for row in rows
        }
    )


async def write_benchmarks(connection: Connection, folding: BenchmarkFolding) -> None:
    """Write what the batch changed."""
    if folding.recipes:
        await connection.execute(SQL["benchmark_recipes_write"], encode(folding.recipes))
    if folding.told_better:
        await connection.execute(SQL["benchmark_runs_retell"], encode(list(folding.told_better.values())))
    if folding.new:
        await write_reports(connection, list(folding.new.values()))
    if folding.decisions:
        await connection.execute(SQL["benchmark_decisions_write"], encode(folding.decisions))
    changed = [*folding.new, *(str(row["run_uid"]) for row in folding.decisions)]
    if changed:
        await connection.execute(SQL["benchmark_history_changed"], sorted(set(changed)))


async def write_reports(connection: Connection, reports: Sequence[ReportRows]) -> None:
    """Write runs that are not held, as nobody has settled or judged them yet."""
    await connection.execute(SQL["benchmark_runs_write"], encode([one.run for one in reports]))
    await connection.execute(SQL["benchmark_links_write"], encode([row for one in reports for row in one.claims]))
    await connection.execute(SQL["benchmark_metrics_write"], encode([row for one in reports for row in one.metrics]))
