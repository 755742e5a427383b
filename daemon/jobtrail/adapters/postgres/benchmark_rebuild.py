"""Derives what the trail says of benchmarks anew: to check the tables, or to put them right.

From the trail are recipes, runs with what they claim and measured, and decisions. Links, energies, numbers that need
energy, and verdicts are not compared: the server works them out of the jobs and of samples that are kept for some days
only, so those of runs that are right are kept. A run that is not right is written anew without them; the server then
settles and judges it as far as it still can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.benchmark_folding import write_reports
from jobtrail.adapters.postgres.benchmark_rows import ReportRows, decision_row, report_rows
from jobtrail.adapters.postgres.folding import decode_storable
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import Row, encode
from jobtrail.domain.benchmarks.holding import precedence, refusal
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Event

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

RUNS_AT_ONCE = 50  # a report may be a mebibyte
PATIENCE_SECONDS = 86_400.0  # reading a whole trail takes what it takes

Place = tuple[str, int]  # chain and sequence of an event


class BenchmarkDifference(msgspec.Struct, frozen=True):
    """What differs; a missing row has field `row`. `which` is the uid of a run, or name and hash of a recipe."""

    which: str
    field: str
    stored: Any
    from_trail: Any


class BenchmarkTrail(msgspec.Struct):
    """What the trail says of benchmarks: of a run the place of the event that counts.

    `wrong` are the uids of runs that differ from it.
    """

    events: int = 0
    winners: dict[str, tuple[tuple[bool, int, str], Place]] = msgspec.field(default_factory=dict)
    recipes: dict[tuple[str, str], Row] = msgspec.field(default_factory=dict)
    decisions: list[Row] = msgspec.field(default_factory=list)
    unverifiable: dict[str, str] = msgspec.field(default_factory=dict)
    wrong: set[str] = msgspec.field(default_factory=set)

    @property
    def is_whole(self) -> bool:
        """Whether every event could be read, so that what none of them tells is wrong."""
        return not self.unverifiable


async def compare_benchmarks(connection: Connection) -> tuple[BenchmarkTrail, list[BenchmarkDifference]]:
    """What the trail gives, and what differs from it in the tables."""
    trail = await _survey(connection)
    differences: list[BenchmarkDifference] = []
    async for batch in _batches(connection, trail):
        runs, numbers = encode([one.run for one in batch]), encode([row for one in batch for row in one.metrics])
        found = await _ask(connection, SQL["rebuild_compare_benchmarks"], runs)
        uids = [one.run["run_uid"] for one in batch]
        found += await _ask(connection, SQL["rebuild_compare_benchmark_metrics"], uids, numbers)
        trail.wrong |= {one.which for one in found}
        differences += found
    recipes, decisions = encode(list(trail.recipes.values())), encode(trail.decisions)
    whole = trail.is_whole
    differences += await _ask(connection, SQL["rebuild_compare_benchmark_recipes"], recipes, whole)
    differences += await _ask(connection, SQL["rebuild_compare_benchmark_decisions"], decisions, whole)
    differences += await _ask(connection, SQL["rebuild_compare_benchmark_orphans"], list(trail.winners), whole)
    return trail, differences


async def rebuild_benchmarks(connection: Connection, trail: BenchmarkTrail) -> None:
    """Write anew what `compare_benchmarks` found to be wrong, within the caller's transaction."""
    recipes, decisions, whole = list(trail.recipes.values()), encode(trail.decisions), trail.is_whole
    wrong = sorted(trail.wrong)
    await _do(connection, SQL["rebuild_delete_benchmark_recipes"], encode(recipes), whole)
    await _do(connection, SQL["rebuild_delete_benchmark_decisions"], decisions, whole)
    await _do(connection, SQL["rebuild_delete_benchmarks"], wrong, list(trail.winners), whole)
    await _do(connection, SQL["benchmark_recipes_write"], encode(recipes))
    await _do(connection, SQL["benchmark_decisions_write"], decisions)
    async for batch in _batches(connection, trail):
        if lost := [one for one in batch if one.run["run_uid"] in trail.wrong]:
            await write_reports(connection, lost)
    await _do(connection, SQL["benchmark_history_changed"], wrong)


async def _survey(connection: Connection) -> BenchmarkTrail:
    trail = BenchmarkTrail()
    async for place, payload in _payloads(connection):
        trail.events += 1
        event = _event(payload)
        if isinstance(event, str):
            trail.unverifiable[f"event {place[1]} of chain {place[0]}"] = event
        elif event.baseline is not None:
            trail.decisions.append(decision_row(event))
        elif event.benchmark is not None:
            _offer(trail, place, event)
    return trail


def _offer(trail: BenchmarkTrail, place: Place, event: Event) -> None:
    assert event.benchmark is not None
    stamp, held = precedence(event), trail.winners.get(event.benchmark.run_uid)
    if held is None or stamp < held[0]:
        trail.winners[event.benchmark.run_uid] = (stamp, place)
    recipe = report_rows(event).recipe
    if recipe is not None:  # events come in the order in which recipes are taken
        trail.recipes.setdefault((recipe["name"], recipe["sha256"]), recipe)


def _event(payload: bytes | None) -> Event | str:
    """The event, or why it says nothing."""
    if payload is None:
        return "the payload of an event is erased"
    try:
        event = decode_storable(payload)
    except InvalidEvent as error:
        return f"an event cannot be read: {error}"
    return refusal(event) or event


async def _payloads(connection: Connection) -> AsyncIterator[tuple[Place, bytes | None]]:
    async for row in connection.cursor(SQL["rebuild_benchmark_events"], prefetch=20, timeout=PATIENCE_SECONDS):
        yield (row["chain_id"], row["seq"]), row["payload"]


async def _batches(connection: Connection, trail: BenchmarkTrail) -> AsyncIterator[list[ReportRows]]:
    """The runs as their events give them, some at a time."""
    places = {place for _, place in trail.winners.values()}
    batch: list[ReportRows] = []
    async for place, payload in _payloads(connection):
        event = _event(payload) if place in places else ""
        if isinstance(event, str):
            continue
        batch.append(report_rows(event))
        if len(batch) >= RUNS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


async def _ask(connection: Connection, query: str, *values: Any) -> list[BenchmarkDifference]:
    rows = await connection.fetch(query, *values, timeout=PATIENCE_SECONDS)
    return [one for row in rows for one in _differences(row["which"], row["stored"], row["expected"])]


async def _do(connection: Connection, query: str, *values: Any) -> None:
    await connection.execute(query, *values, timeout=PATIENCE_SECONDS)


def _differences(which: str, stored: str | None, expected: str | None) -> Sequence[BenchmarkDifference]:
    held, wanted = (None if text is None else msgspec.json.decode(text) for text in (stored, expected))
    if held is None or wanted is None:
        return [BenchmarkDifference(which, "row", held and "present", wanted and "present")]
    return [BenchmarkDifference(which, name, held[name], wanted[name]) for name in held if held[name] != wanted[name]]
