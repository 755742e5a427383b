"""Looks at the GPUs and the energy counters of the node, and keeps the books of every open run.

One look on a common tick, one more when a run begins, and one when it ends. A driver that hangs costs its values and,
at the end of a run, a second at most.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from jobtrail.core.energy.node import Ended, EnergyLook, NodeEnergy
from jobtrail.core.energy.rows import AddEnergyRow, EnergyRows, Seen, nobody_uses
from jobtrail.core.facts import Observer, SampleSourceFailed
from jobtrail.core.gpu.books import EmissionSettings, RunBooks
from jobtrail.core.gpu.holders import Holders, Place, names_gpus
from jobtrail.core.gpu.owners import Owners
from jobtrail.core.gpu.ports import GpuSampleRow, GresReader, ProcessPlace, ProcessPlaces
from jobtrail.core.gpu.scene import Scene
from jobtrail.core.gpu.sources import GpuSources
from jobtrail.core.ports import Clock, GpuSource, OpenRun
from jobtrail.core.runs.board import Board
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.gpus import GpuReading
from jobtrail.domain.gres import GresConf

Result = TypeVar("Result")
# Any user may ask for looks: these lie so far apart, and take a fifth of the drivers' time at most.
ASKED_APART_SECONDS = 0.05
ASKED_APART_LOOKS = 5
ASKED_APART_MOST_SECONDS = 1.0
ROUNDING_SECONDS = 1e-6  # a timer may fire by so much early


class GpuRhythm(msgspec.Struct, frozen=True, kw_only=True):
    """When to look, and how long the end of a run may wait for a look."""

    interval_seconds: float = 15.0
    idle_window_seconds: float = 1800.0
    soonest_seconds: float = 0.5  # looks because runs begin lie that far apart at least
    closing_seconds: float = 1.0
    files_seconds: float = 0.5  # how long a look waits for Slurm's files, which may lie on another machine

    def next_tick(self, now: float) -> float:
        """Monotonic time of the first tick after `now`."""
        tick = (math.floor(now / self.interval_seconds) + 1) * self.interval_seconds
        return tick if tick > now else tick + self.interval_seconds  # the division may have been rounded down


class Counters(Protocol):
    """Who reads the counters of jobs, one read at a time."""

    async def safely(self, read: Callable[[], Result]) -> Result | None:
        """Run a blocking read in a thread; None when it failed, which is told."""
        ...

    def cpu_times(self) -> Callable[[], Mapping[str, int]]:
        """A blocking read of the CPU time of all open runs, by ref."""
        ...


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """What one hop to a thread gave."""

    places: Mapping[int, ProcessPlace]
    energy: EnergyLook | None


class GpuWatch:
    """Keeps the books of the open runs. Implements `jobtrail.core.runs.companion.Companion`."""

    def __init__(
        self,
        *,
        sources: Sequence[GpuSource],
        energy: NodeEnergy | None,
        places: ProcessPlaces,
        gres: GresReader,
        counters: Counters,
        board: Board,
        add_row: Callable[[GpuSampleRow], None],
        add_energy_row: AddEnergyRow,
        clock: Clock,
        tell: Observer,
        node: str,
        rhythm: GpuRhythm,
        emissions: EmissionSettings,
    ) -> None:
        self._sources = GpuSources(sources, tell)
        self._energy = energy
        self._places = places
        self._counters = counters
        self._clock = clock
        self._rhythm = rhythm
        self._emissions = emissions
        self._holders = Holders(gres)
        self._scene = Scene(
            board=board,
            add_row=add_row,
            tell=tell,
            node=node,
            interval_seconds=rhythm.interval_seconds,
            idle_window_seconds=rhythm.idle_window_seconds,
            store_apart_seconds=rhythm.soonest_seconds,
            emissions=emissions,
        )
        self._rows = EnergyRows(add_energy_row, spacing_seconds=rhythm.soonest_seconds, emissions=emissions)
        self._books: dict[str, RunBooks] = {}
        self._asked: set[str] = set()  # refs of runs that are to be written down at the next look
        self._looks = 0  # begun so far
        self._looking = asyncio.Lock()
        self._tell = tell
        self._files: asyncio.Task[dict[Place, GresConf]] | None = None  # being read
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closed = False
        self._due = 0.0
        self._began = -math.inf  # monotonic seconds: the last look
        self._took = 0.0  # seconds: the last look

    def opened(self, run: OpenRun) -> None:
        """A run began on this node: look at its GPUs soon, for that is where its energy begins."""
        books = RunBooks(run)
        self._books[run.target.ref] = books
        if self._energy is not None:
            self._energy.began(books)
        self._due = min(self._due, max(self._clock.monotonic(), self._began + self._rhythm.soonest_seconds))
        self._wake.set()

    def closed(self, ref: str, ended_us: int) -> None:
        """A run is over: no look from now on finds it beside those that begin after it."""
        if ref in self._books:
            self._books[ref].ended_us = ended_us

    def so_far(self, ref: str, usage: NodeUsage) -> NodeUsage:
        """The usage of a run that goes on, with what is known of its GPUs and energy."""
        books = self._books.get(ref)
        return usage if books is None else books.usage(usage, self._emissions)

    async def ended(self, ended: Mapping[str, Ended]) -> None:
        """Look once more at what runs that are over had, unless that takes too long."""
        known = [self._books[ref] for ref in ended if ref in self._books]
        gpus = any(names_gpus(books) or (books.allocation and books.allocation.gpu_ids) for books in known)
        if self._closed or not known or not (gpus or (self._energy is not None and self._energy.has_counters)):
            return
        task = self._begin(self._look(ended, gpus=bool(gpus)))
        # Not cancelled when the time is up: a read in a thread cannot be, and another must not begin beside it.
        await asyncio.wait({task}, timeout=self._rhythm.closing_seconds)
        if task.done():
            task.result()

    async def asked(self, job_id: str, uid: int) -> None:
        """Look at all GPUs and counters now, and write down what `uid`'s open runs of a job have used; root may ask of
        all. Those who ask while a look goes on share the next one.
        """
        targets = [books.run.target for books in self._books.values()]
        self._asked |= {one.ref for one in targets if one.job_id == job_id and uid in (0, one.uid)}
        before = self._looks
        apart = min(max(ASKED_APART_SECONDS, ASKED_APART_LOOKS * self._took), ASKED_APART_MOST_SECONDS)
        pause = self._began + apart - self._clock.monotonic()
        await asyncio.sleep(max(0.0, pause))
        if not self._closed:
            await self._begin(self._look({}, gpus=True, unless_after=before))

    def final(self, ref: str, usage: NodeUsage) -> NodeUsage:
        """The usage of a run that is over; its books are closed."""
        books = self._books.pop(ref, None)
        return usage if books is None else books.usage(usage, self._emissions, final=True)

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`; then let the drivers go."""
        try:
            while not stop.is_set():
                self._wake.clear()
                now = self._clock.monotonic()
                if self._due <= now + ROUNDING_SECONDS:
                    self._due = self._rhythm.next_tick(now)
                    await self._look({}, gpus=True)
                seconds = max(0.0, self._due - self._clock.monotonic())
                await wait_for_any(self._wake.wait(), stop.wait(), timeout_seconds=seconds)
        finally:
            self._closed = True  # a look would open the drivers again
            await asyncio.gather(*self._tasks)
            if self._files is not None:
                self._files.cancel()
            await self._sources.close()

    def _begin(self, look: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A look that the drivers are kept open for."""
        task = asyncio.create_task(look)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look(self, ended: Mapping[str, Ended], *, gpus: bool, unless_after: int | None = None) -> None:
        """`unless_after` is a number of looks: if another has begun since then, no more is to be done."""
        async with self._looking:
            if unless_after is not None and self._looks > unless_after:
                return
            self._looks += 1
            asked, self._asked = frozenset(self._asked), set()
            self._began = now = self._clock.monotonic()
            looks = await self._sources.look() if gpus else ()
            self._holders.note(looks)
            readings = [reading for look in looks for reading in look.readings]
            confs = await self._confs(self._holders.wanted(self._books.values(), now))
            cpu_times = self._counters.cpu_times()
            read = await self._counters.safely(functools.partial(self._read, readings, cpu_times))
            if read is None:
                read = _Read(places={}, energy=None)
            runs = dict(self._books)  # as of now: some may have come or gone meanwhile
            owners = Owners(books.run for books in runs.values()).all(read.places)
            self._holders.settle(runs.values(), confs, now, readings=readings, owners=owners)
            if self._energy is not None and read.energy is not None:
                self._energy.divide(read.energy, runs.values(), ended)
            if gpus:
                self._scene.settle(round(self._clock.monotonic() * 1e6), looks, runs, owners)
            self._scene.show(runs)
            seen = Seen(
                now=now,
                asked_gpus=gpus,
                readings={reading.gpu.gpu_id: reading for reading in readings},
                uses=self._scene.uses_beside if gpus else nobody_uses,
                energy=None if read.energy is None else read.energy.reading,
            )
            self._rows.write(seen, runs, over=ended, asked=asked)
            self._took = self._clock.monotonic() - now

    async def _confs(self, wanted: Collection[Place]) -> Mapping[Place, GresConf]:
        """What Slurm's files say, nothing where it is not known soon: then a later look has it.

        Apart from all other reads, because a file system of the network can hang for hours.
        """
        if self._files is None and wanted:
            self._files = asyncio.create_task(asyncio.to_thread(self._holders.read, wanted))
            await asyncio.wait({self._files}, timeout=self._rhythm.files_seconds)
        if self._files is None or not self._files.done():
            return {}
        files, self._files = self._files, None
        error = files.exception()
        if error is None:
            return files.result()
        self._tell(SampleSourceFailed(source="gres.conf", reason=f"{type(error).__name__}: {error}"))
        return {}

    def _read(self, readings: Iterable[GpuReading], cpu_times: Callable[[], Mapping[str, int]]) -> _Read:
        """All that blocks, in one hop to a thread."""
        pids = {process.pid for reading in readings for process in reading.processes or ()}
        return _Read(
            places=self._places.places_of(sorted(pids)) if pids else {},
            energy=None if self._energy is None else self._energy.read(cpu_times),
        )
