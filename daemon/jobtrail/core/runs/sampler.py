"""Measures running jobs: early and often while they are young, then on a common tick, and once more when they end.

A job's start event starts its sampling; nothing is discovered by looking for directories of jobs that do not exist.
All counters of a source are read in one hop to a worker thread, so a slow cgroup file never holds up an event.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec

from jobtrail.core.energy.node import Ended
from jobtrail.core.facts import JobSampled, Observer, ReadingMissed, SampleSourceFailed, SeriesShed
from jobtrail.core.ports import Clock, NodeSource, OpenRun, SampleRow, UsageSource
from jobtrail.core.runs.board import Board
from jobtrail.core.runs.companion import Companion
from jobtrail.core.runs.sight import Sight, first_sight
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.ledger import ParentLedger
from jobtrail.domain.samples import Miss, Missed, NodeReading, Reading, Target
from jobtrail.domain.usage import cpu_percent, node_cpu_percent, observe, with_cpu_of_ended_job, with_last_look


class Rhythm(msgspec.Struct, frozen=True, kw_only=True):
    """When to look: at ages `first_seconds`, doubling until `interval_seconds`, then on ticks of that interval."""

    first_seconds: float = 0.1
    interval_seconds: float = 15.0
    checkpoint_seconds: float = 600.0

    def next_look(self, age_seconds: float, now: float) -> float:
        """Monotonic time of the next look at a job of this age."""
        due = self.first_seconds
        while due <= age_seconds + 1e-3:
            due *= 2
        if due < self.interval_seconds:
            return now + due - age_seconds
        return self.next_tick(now)

    def next_tick(self, now: float) -> float:
        """Monotonic time of the first tick after `now`."""
        tick = (math.floor(now / self.interval_seconds) + 1) * self.interval_seconds
        return tick if tick > now else tick + self.interval_seconds  # the division may have been rounded down


class Watched(msgspec.Struct, kw_only=True):
    """A run being sampled. `born`, `due` and `next_checkpoint` are monotonic seconds."""

    run: OpenRun
    source: UsageSource
    born: float
    due: float
    next_checkpoint: float
    usage: NodeUsage
    sight: Sight = msgspec.field(default_factory=Sight)
    last: Reading | None = None
    row_at: float = -math.inf  # monotonic time of the last sample row
    cpu_percent: float | None = None
    ended_us: int | None = None

    @property
    def ref(self) -> str:
        """The id of the event that opened the run."""
        return self.run.target.ref


Report = Callable[[Watched, bool], Awaitable[bool]]
UNREPORTED_RETRY_SECONDS = 5.0
SHORTEST_RATE_US = 50_000  # two looks closer together, as at a job's end, tell nothing about a rate
Result = TypeVar("Result")


class Sampler:
    """Looks at every open run of this node and keeps board, sample rows and usage up to date.

    `report(watched, final)` sends a run's usage so far, or its final usage, as an event, and says whether it was taken.
    `add_row` takes each reading.
    """

    def __init__(
        self,
        *,
        source_for: Callable[[Target], UsageSource],
        node_source: NodeSource,
        board: Board,
        add_row: Callable[[SampleRow], None],
        report: Report,
        clock: Clock,
        tell: Observer,
        rhythm: Rhythm,
    ) -> None:
        self._source_for = source_for
        self._node_source = node_source
        self._board = board
        self._add_row = add_row
        self._report = report
        self._clock = clock
        self._tell = tell
        self._rhythm = rhythm
        self._watched: dict[str, Watched] = {}
        self._opening: list[Watched] = []
        self._closing: list[Watched] = []
        self._unreported: list[Watched] = []
        self._retry_due = 0.0
        self._ledgers: dict[tuple[int, str], ParentLedger] = {}
        self._wake = asyncio.Event()
        self._hop = asyncio.Lock()
        self._parents_complete = True
        self._books_begin = False
        self._node_due = 0.0
        self._node_last: NodeReading | None = None
        self._companion: Companion | None = None

    def accompany(self, companion: Companion) -> None:
        """Let `companion` measure the same runs; to be said before any is opened."""
        self._companion = companion

    def trust_parents(self, *, complete: bool = True) -> None:
        """Whether every job under the parent counters is known; while not, their growth is credited to nobody.

        The books begin anew when it becomes so.
        """
        self._parents_complete = self._books_begin = complete
        self._wake.set()

    def opened(self, run: OpenRun) -> None:
        """A run began on this node: look at it soon."""
        now = self._clock.monotonic()
        born = now - max(0.0, (self._clock.time_us() - run.started_us) / 1e6)
        source = self._source_for(run.target)
        source.attach(run.target)
        watched = Watched(
            run=run,
            source=source,
            born=born,
            due=self._rhythm.next_look(now - born, now),
            next_checkpoint=now + self._rhythm.checkpoint_seconds,
            usage=run.usage or NodeUsage(),
            sight=first_sight(run),
        )
        self._watched[watched.ref] = watched
        # At once: a job that begins while the counters are read belongs to the books of that very look.
        self._ledger(watched).track(watched.ref, run.cpus, new=not run.found)
        self._opening.append(watched)
        if not self._board.open(run):
            self._tell(SeriesShed(jobs=1))
        if self._companion is not None:
            self._companion.opened(run)
        self._wake.set()

    def closed(self, run: OpenRun, ended_us: int) -> None:
        """A run ended on this node: settle its usage."""
        watched = self._watched.pop(run.target.ref, None)
        if watched is None:
            return
        watched.ended_us = ended_us
        if self._companion is not None:
            self._companion.closed(watched.ref, ended_us)
        self._closing.append(watched)
        self._wake.set()

    def owner_of(self, cluster: str, job_id: str) -> int | None:
        """The uid of a run that is open on this node, root's where it is not known; None where there is no such run."""
        wanted = (cluster, job_id)
        targets = (watched.run.target for watched in self._watched.values())
        return next((target.uid or 0 for target in targets if (target.cluster, target.job_id) == wanted), None)

    def sight_of(self, ref: str) -> Sight | None:
        """What the looks at an open run told of whether it is still there; None for a run that is not watched."""
        watched = self._watched.get(ref)
        return None if watched is None else watched.sight

    async def last_look(self, cluster: str, job_id: str) -> None:
        """Read a job's counters now, while whoever reports its end still holds them open."""
        named = [w for w in self._watched.values() if (w.run.target.cluster, w.run.target.job_id) == (cluster, job_id)]
        await self._look(named)

    def is_running_for(self, job_id: str, uid: int) -> bool:
        """Whether a job is open on this node and is `uid`'s; root may speak for every one."""
        return bool(self._runs_of(job_id, uid))

    async def poked(self, job_id: str, uid: int, *, by: str) -> None:
        """Read a job's counters now; should nobody read them later, its usage says that `by` was the last to ask."""
        await self._look(self._runs_of(job_id, uid), asked_by=by)

    async def look_now(self, job_id: str, uid: int) -> None:
        """Read a job's counters now, as on a tick: there is a row of it, whenever the last was."""
        await self._look(self._runs_of(job_id, uid))

    def _runs_of(self, job_id: str, uid: int) -> list[Watched]:
        """`uid`'s open runs of a job, whatever their cluster: a task knows none that could be believed."""
        named = [watched for watched in self._watched.values() if watched.run.target.job_id == job_id]
        return [watched for watched in named if uid in (0, watched.run.target.uid)]

    async def run(self, stop: asyncio.Event) -> None:
        """Sample until `stop`; then settle what has ended and checkpoint what still runs."""
        while not stop.is_set():
            self._wake.clear()
            await self._settle()
            now = self._clock.monotonic()
            if self._node_due <= now:
                await self._look_at_node(now)
            if due := [watched for watched in self._watched.values() if watched.due <= now]:
                await self._look(due)
                await self._checkpoint(due)
            await wait_for_any(self._wake.wait(), stop.wait(), timeout_seconds=self._seconds_to_next())
        self._retry_due = 0.0
        await self._settle()
        for watched in list(self._watched.values()):
            if watched.usage.sample_count:
                await self._report_so_far(watched)

    def _seconds_to_next(self) -> float:
        now = self._clock.monotonic()
        soonest = min((watched.due for watched in self._watched.values()), default=math.inf)
        retry = self._retry_due if self._unreported else math.inf
        return max(0.0, min(soonest, self._node_due, retry) - now)

    async def _settle(self) -> None:
        """Take the books of the parent counters when jobs came or went, and finish those that went."""
        opening, self._opening = self._opening, []
        closing, self._closing = self._closing, []
        await self._look(closing)
        begin, self._books_begin = self._books_begin, False
        concerned = (*opening, *closing, *(self._watched.values() if begin else ()))
        for watched in {id(self._ledger(watched)): watched for watched in concerned}.values():
            if begin:
                self._ledger(watched).restart()
            await self._look_at_parent(watched, ended=[other.ref for other in closing])
        for watched in closing:
            self._finish(watched)
        await self._end_company(closing)
        await self._report_ended(closing)

    async def _end_company(self, closing: Iterable[Watched]) -> None:
        """Add GPUs and energy to the usage of runs that are over."""
        if self._companion is None or not closing:
            return
        await self._companion.ended(
            {w.ref: Ended(ended_us=w.ended_us or 0, cpu_usage_us=w.usage.cpu_usage_us) for w in closing}
        )
        for watched in closing:
            watched.usage = self._companion.final(watched.ref, watched.usage)

    async def _report_so_far(self, watched: Watched) -> None:
        if self._companion is not None:
            watched.usage = self._companion.so_far(watched.ref, watched.usage)
        await self._report(watched, False)

    async def _report_ended(self, ended: Iterable[Watched]) -> None:
        """Send final usage; what is not taken is tried again, not more often than every few seconds."""
        now = self._clock.monotonic()
        if self._unreported and now >= self._retry_due:
            ended, self._unreported = (*self._unreported, *ended), []
        # Together, so that the spool flushes them to the disk once.
        everyone = list(ended)
        taken = await asyncio.gather(*(self._report(watched, True) for watched in everyone))
        if left := [watched for watched, was_taken in zip(everyone, taken, strict=True) if not was_taken]:
            self._unreported += left
            self._retry_due = now + UNREPORTED_RETRY_SECONDS

    def _ledger(self, watched: Watched) -> ParentLedger:
        key = (id(watched.source), watched.run.target.node)
        return self._ledgers.setdefault(key, ParentLedger())

    async def _look_at_parent(self, watched: Watched, ended: Iterable[str]) -> None:
        ledger = self._ledger(watched)
        refs = {*ledger.refs(), watched.ref}
        totals = await self.safely(functools.partial(watched.source.cpu_totals, refs))
        if totals is None or not self._parents_complete:
            ledger.restart(list(ended))
        else:
            ledger.look(totals, list(ended))

    def _finish(self, watched: Watched) -> None:
        """Close the books of a job that ended."""
        credit = self._ledger(watched).forget(watched.ref)
        if credit is not None:
            watched.usage = with_cpu_of_ended_job(watched.usage, credit.cpu_usage_us, shared_by=credit.shared_by)
        watched.source.detach(watched.ref)
        self._board.end(watched.ref, watched.ended_us or 0, self._clock.monotonic())

    async def _look(self, watched: Iterable[Watched], *, asked_by: str | None = None) -> None:
        """One reading of each, one hop to a thread per source."""
        by_source: dict[int, list[Watched]] = {}
        for one in watched:
            by_source.setdefault(id(one.source), []).append(one)
        for group in by_source.values():
            began = self._clock.monotonic()
            readings = await self.safely(functools.partial(group[0].source.read, [one.ref for one in group]))
            for one in group:
                self._take(one, (readings or {}).get(one.ref), asked_by)
            self._tell(JobSampled(readings=len(group), seconds=self._clock.monotonic() - began))

    def cpu_times(self) -> Callable[[], dict[str, int]]:
        """A blocking read of the CPU time of all runs that are open now, by ref; for `safely`."""
        by_source: dict[int, list[Watched]] = {}
        for watched in self._watched.values():
            by_source.setdefault(id(watched.source), []).append(watched)
        asked = [(group[0].source, [watched.ref for watched in group]) for group in by_source.values()]

        def read() -> dict[str, int]:
            return {ref: used for source, refs in asked for ref, used in source.cpu_totals(refs).by_ref.items()}

        return read

    async def safely(self, read: Callable[[], Result]) -> Result | None:
        """Run a blocking read in a thread, one at a time; a failing source costs its values, not the daemon."""
        async with self._hop:
            result = await asyncio.to_thread(_attempt, read)
        if isinstance(result, Exception):
            self._tell(SampleSourceFailed(source=_name(read), reason=f"{type(result).__name__}: {result}"))
            return None
        return result

    def _take(self, watched: Watched, reading: Reading | Missed | None, asked_by: str | None) -> None:
        now = self._clock.monotonic()
        watched.due = self._rhythm.next_look(now - watched.born, now)
        watched.sight.note(reading, now=now, now_us=self._clock.time_us())
        target = watched.run.target
        if not isinstance(reading, Reading):
            if reading is not None and reading.miss is Miss.UNREADABLE:
                self._tell(ReadingMissed(job_id=target.job_id, reason=reading.miss, detail=reading.detail))
            gone = reading is not None and reading.miss is Miss.GONE and watched.ended_us is None
            if reading is None or reading.miss is Miss.UNREADABLE or gone:
                self._board.miss(watched.ref)  # old levels must not look like those of a living job
            return
        if watched.last is None or reading.time_us - watched.last.time_us >= SHORTEST_RATE_US:
            watched.cpu_percent = cpu_percent(watched.last, reading, watched.run.cpus)
        percent = watched.cpu_percent
        watched.usage = with_last_look(observe(watched.usage, reading, watched.run.started_us), asked_by)
        watched.last = reading
        if reading.cpu_usage_us is not None:
            self._ledger(watched).note(watched.ref, reading.cpu_usage_us)
        self._board.update(watched.ref, reading, percent, watched.usage)
        if asked_by is not None and now - watched.row_at < self._rhythm.interval_seconds:
            return  # any user may ask twice a second, for as long as the job runs
        watched.row_at = now
        self._add_row(
            SampleRow(
                cluster=target.cluster,
                job_id=target.job_id,
                node=target.node,
                ref=target.ref,
                reading=reading,
                cpu_percent=percent,
            )
        )

    async def _checkpoint(self, watched: Iterable[Watched]) -> None:
        now = self._clock.monotonic()
        for one in watched:
            if one.next_checkpoint <= now and one.usage.sample_count:
                one.next_checkpoint = now + self._rhythm.checkpoint_seconds
                await self._report_so_far(one)

    async def _look_at_node(self, now: float) -> None:
        self._node_due = self._rhythm.next_tick(now)
        self._board.expire(now)
        reading = await self.safely(self._node_source.read_node)
        self._board.node_cpu_percent = None if reading is None else node_cpu_percent(self._node_last, reading)
        self._board.node = self._node_last = reading


def _attempt(read: Callable[[], Result]) -> Result | Exception:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - a boundary: whatever a reader's bug raises is counted by the caller
        return error


def _name(read: Callable[[], object]) -> str:
    method = read.func if isinstance(read, functools.partial) else read
    return type(getattr(method, "__self__", method)).__name__
