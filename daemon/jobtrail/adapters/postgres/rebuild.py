"""Derives jobs and benchmarks anew from the trail: to check the tables, or to put them right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.benchmark_rebuild import BenchmarkTrail, compare_benchmarks, rebuild_benchmarks
from jobtrail.adapters.postgres.columns import job_row, node_row, with_projection
from jobtrail.adapters.postgres.folding import RunKey, decode_storable
from jobtrail.adapters.postgres.sink import withdrawn_rows, write_projection
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.usage_columns import gpu_rows
from jobtrail.adapters.postgres.values import encode
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.job import NodeRun, Run
from jobtrail.domain.transitions import Rejected, apply, open_run

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

RUNS_AT_ONCE = 200
MAX_DIFFERENCES = 1000
PATIENCE_SECONDS = 86_400.0  # reading a whole trail takes what it takes; the pool's deadline is for small statements

Progress = Callable[[int], None]  # runs done so far


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One value that differs. `node` is None for a column of `jobs`; a missing row has field `row`.

    A column of `job_gpus` has the GPU before it: `GPU-….busy_seconds`. What is about a benchmark names no run of a job
    but `benchmark`: the uid of its run, or name and hash of its recipe.
    """

    cluster_name: str | None = None
    job_id: str | None = None
    run: int | None = None
    node: str | None = None
    benchmark: str | None = None
    field: str
    stored: Any
    from_trail: Any


class RebuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a check or a rebuild found.

    `differences` holds the first 1,000 of `differing`. `unverifiable` are runs of which an event's payload was erased
    or is no event any more, with the reason: nothing can be derived for them, so they are left as they are. So it is
    with events about benchmarks. `benchmarks` are runs of these.
    """

    runs: int
    benchmarks: int
    events: int
    differing: int
    differences: tuple[Difference, ...]
    unverifiable: dict[str, str]

    @property
    def equal(self) -> bool:
        """Whether all that could be derived equals what is stored."""
        return self.differing == 0


class _Derived(msgspec.Struct, frozen=True):
    """A run as its events give it, or why they do not."""

    key: RunKey
    events: int
    run: Run | None
    problem: str | None = None


class _Tally:
    """Gathers a report."""

    def __init__(self, progress: Progress | None) -> None:
        self.runs = self.benchmarks = self.events = self.differing = 0
        self.differences: list[Difference] = []
        self.unverifiable: dict[str, str] = {}
        self._progress = progress

    def count(self, derived: Sequence[_Derived]) -> None:
        self.runs += len(derived)
        self.events += sum(one.events for one in derived)
        for one in derived:
            if one.problem is not None:
                self.unverifiable["/".join(map(str, one.key))] = one.problem
        if self._progress is not None:
            self._progress(self.runs)

    async def count_benchmarks(self, connection: Connection) -> BenchmarkTrail:
        """Compare what is held of benchmarks; what the trail says of them."""
        trail, differences = await compare_benchmarks(connection)
        self.benchmarks += len(trail.winners)
        self.events += trail.events
        self.unverifiable |= trail.unverifiable
        for one in differences:
            self.differ(Difference(benchmark=one.which, field=one.field, stored=one.stored, from_trail=one.from_trail))
        return trail

    def differ(self, difference: Difference) -> None:
        self.differing += 1
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(difference)

    def report(self) -> RebuildReport:
        return RebuildReport(
            runs=self.runs,
            benchmarks=self.benchmarks,
            events=self.events,
            differing=self.differing,
            differences=tuple(self.differences),
            unverifiable=self.unverifiable,
        )


async def rebuild_check(connection: Connection, progress: Progress | None = None) -> RebuildReport:
    """Compare the projection with what the trail gives, on one snapshot of the database while everybody writes on."""
    tally = _Tally(progress)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await _compare_all(connection, tally)
        await tally.count_benchmarks(connection)
    return tally.report()


async def rebuild(connection: Connection, progress: Progress | None = None) -> RebuildReport:
    """Write the projection anew, in one transaction; the report says what differed before.

    Rows of which the trail knows nothing are deleted. Needs the rights of the tables' owner; writers wait meanwhile.
    """
    tally = _Tally(progress)
    async with connection.transaction():
        await connection.execute(SQL["rebuild_lock"], timeout=PATIENCE_SECONDS)
        await _compare_all(connection, tally)
        benchmarks = await tally.count_benchmarks(connection)
        orphans = [_key(row) for row in await connection.fetch(SQL["rebuild_orphans"], timeout=PATIENCE_SECONDS)]
        await _delete(connection, orphans)
        async for derived in _batches(connection):
            runs = [one for one in derived if one.run is not None]
            await _delete(connection, [one.key for one in runs])
            jobs = {one.key: one.run.job for one in runs if one.run is not None}
            await write_projection(connection, jobs, _nodes(runs))
        await rebuild_benchmarks(connection, benchmarks)
    return tally.report()


async def _compare_all(connection: Connection, tally: _Tally) -> None:
    async for derived in _batches(connection):
        await _compare(connection, [one for one in derived if one.run is not None], tally)
        tally.count(derived)
    for row in await connection.fetch(SQL["rebuild_orphans"], timeout=PATIENCE_SECONDS):
        cluster, job_id, run = _key(row)
        tally.differ(
            Difference(
                cluster_name=cluster, job_id=job_id, run=run, node=None, field="row", stored="present", from_trail=None
            )
        )


async def _batches(connection: Connection) -> AsyncIterator[list[_Derived]]:
    """All runs of the trail, derived, some hundred at a time, read with a server-side cursor."""
    batch: list[_Derived] = []
    key: RunKey | None = None
    payloads: list[bytes | None] = []
    async for row in connection.cursor(SQL["trail_events"], prefetch=1000, timeout=PATIENCE_SECONDS):
        if key is not None and _key(row) != key:
            batch.append(_derive(key, payloads))
            payloads = []
        key = _key(row)
        payloads.append(row["payload"])
        if len(batch) >= RUNS_AT_ONCE:
            yield batch
            batch = []
    if key is not None:
        batch.append(_derive(key, payloads))
    if batch:
        yield batch


def _derive(key: RunKey, payloads: Sequence[bytes | None]) -> _Derived:
    """Fold a run's events."""
    run = open_run(*key)
    for payload in payloads:
        if payload is None:
            return _Derived(key, len(payloads), None, "the payload of an event is erased")
        try:
            changed = apply(run, decode_storable(payload), created=not run.nodes)
        except InvalidEvent as error:
            return _Derived(key, len(payloads), None, f"an event cannot be read: {error}")
        if isinstance(changed, Rejected):
            return _Derived(key, len(payloads), None, f"an event cannot be applied: {changed.reason}")
        run = changed.run
    return _Derived(key, len(payloads), run)


async def _compare(connection: Connection, derived: Sequence[_Derived], tally: _Tally) -> None:
    of_run = {one.key: one.run.job for one in derived if one.run is not None}
    jobs = [with_projection(job_row(job), job) for job in of_run.values() if job.withdrawn is None]
    for row in await connection.fetch(SQL["rebuild_compare_jobs"], encode(jobs), timeout=PATIENCE_SECONDS):
        _name_differences(row, None, tally)
    taken_back = encode(withdrawn_rows(of_run.values()))
    for row in await connection.fetch(
        SQL["rebuild_compare_withdrawn"], *_columns(list(of_run)), taken_back, timeout=PATIENCE_SECONDS
    ):
        _name_differences(row, None, tally, of=row["prefix"])
    parts = _nodes(derived).items()
    columns = _columns([one.key for one in derived])
    nodes = [with_projection(node_row(of_run[key], part), part) for (key, _), part in parts]
    for row in await connection.fetch(SQL["rebuild_compare_nodes"], *columns, encode(nodes), timeout=PATIENCE_SECONDS):
        _name_differences(row, row["node"], tally)
    gpus = [row for (key, _), part in parts for row in gpu_rows(of_run[key], part)]
    for row in await connection.fetch(SQL["rebuild_compare_gpus"], *columns, encode(gpus), timeout=PATIENCE_SECONDS):
        _name_differences(row, row["node"], tally, of=f"{row['gpu_id']}.")


def _name_differences(row: Any, node: str | None, tally: _Tally, of: str = "") -> None:
    stored, expected = (
        None if row[name] is None else msgspec.json.decode(row[name]) for name in ("stored", "expected")
    )
    cluster, job_id, run = _key(row)
    if stored is None or expected is None:
        pairs = {"row": (stored and "present", expected and "present")}
    else:
        names = [name for name in stored if stored[name] != expected[name]]
        pairs = {name: (stored[name], expected[name]) for name in names}
    for field, (held, wanted) in pairs.items():
        tally.differ(
            Difference(
                cluster_name=cluster,
                job_id=job_id,
                run=run,
                node=node,
                field=of + field,
                stored=held,
                from_trail=wanted,
            )
        )


async def _delete(connection: Connection, keys: Sequence[RunKey]) -> None:
    if keys:
        await connection.execute(SQL["rebuild_delete_jobs"], *_columns(keys))
        await connection.execute(SQL["rebuild_delete_withdrawn"], *_columns(keys))
        await connection.execute(SQL["rebuild_delete_nodes"], *_columns(keys))
        await connection.execute(SQL["rebuild_delete_gpus"], *_columns(keys))


def _nodes(derived: Sequence[_Derived]) -> dict[tuple[RunKey, str], NodeRun]:
    return {(one.key, name): part for one in derived if one.run is not None for name, part in one.run.nodes.items()}


def _columns(keys: Sequence[RunKey]) -> tuple[list[str], list[str], list[int]]:
    return [key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]


def _key(row: Any) -> RunKey:
    return row["cluster_name"], row["job_id"], row["run"]
