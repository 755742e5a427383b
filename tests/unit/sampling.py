"""A sampler on a bench: jobs that burn CPU, a clock that is moved, and notes of what was read and reported."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from jobtrail.core.ports import SampleRow
from jobtrail.core.runs.board import Board
from jobtrail.core.runs.sampler import Rhythm, Sampler, Watched
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.samples import CpuTotals, Missed, Reading, Target
from tests.fakes import Facts, FakeClock, FakeNodeSource, FakeUsageSource
from tests.unit import moved_time
from tests.unit.runs import open_run

SECOND = 1_000_000


class Cpus(FakeUsageSource):
    """A source in which every job that is alive burns one CPU, and the parent keeps what they burned."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self._born: dict[str, float] = {}
        self._burned_us = 0
        self.failing: str | None = None
        self.looked_at: list[tuple[float, tuple[str, ...]]] = []

    def start(self, name: str) -> None:
        self._born[f"slurm-{name}"] = self._clock.monotonic()
        self.parent_us = self.parent_us or 0

    def end(self, name: str) -> None:
        """The job's processes are gone, and its counters with them."""
        job_id = f"slurm-{name}"
        self._burned_us += self._used_us(job_id)
        del self._born[job_id]
        self.readings.pop(job_id, None)

    def read(self, refs: Iterable[str]) -> dict[str, Reading | Missed]:
        self._refresh()
        asked = tuple(refs)
        self.looked_at.append((self._clock.monotonic(), asked))
        return super().read(asked)

    def cpu_totals(self, refs: Iterable[str]) -> CpuTotals:
        self._refresh()
        if self.parent_us is not None:
            self.parent_us = self._burned_us + sum(map(self._used_us, self._born))
        return super().cpu_totals(refs)

    def _used_us(self, job_id: str) -> int:
        return round((self._clock.monotonic() - self._born[job_id]) * 1e6)

    def _refresh(self) -> None:
        if self.failing:
            raise RuntimeError(self.failing)
        for job_id in self._born:
            used, now = self._used_us(job_id), self._clock.time_us()
            self.readings[job_id] = Reading(
                time_us=now, source="cgroup_v2", cpu_usage_us=used, memory_current_bytes=1000
            )


class Bench:
    """A sampler with its surroundings; reports are taken, unless `full`."""

    def __init__(self, rhythm: Rhythm | None = None, max_jobs: int = 10) -> None:
        self.clock, self.facts, self.board = FakeClock(), Facts(), Board(max_jobs=max_jobs)
        self.source, self.other, self.node = Cpus(self.clock), Cpus(self.clock), FakeNodeSource()
        self.rows: list[SampleRow] = []
        self.reports: list[tuple[float, str, bool, NodeUsage]] = []
        self.refused: list[float] = []
        self.full = False
        self.sampler = Sampler(
            source_for=self._source_for,
            node_source=self.node,
            board=self.board,
            add_row=self.rows.append,
            report=self._report,
            clock=self.clock,
            tell=self.facts,
            rhythm=rhythm or Rhythm(),
        )

    def _source_for(self, target: Target) -> Cpus:
        return self.other if target.job_id.startswith("slurm-local") else self.source

    async def _report(self, watched: Watched, final: bool) -> bool:
        if self.full:
            self.refused.append(self.clock.monotonic())
            return False
        self.reports.append((self.clock.monotonic(), watched.ref, final, watched.usage))
        return True

    def open(self, name: str = "a", *, alive: bool = True, age: float = 0, usage: NodeUsage | None = None) -> None:
        if alive:
            self._source_for(open_run(name).target).start(name)
        started_us = self.clock.time_us() - round(age * 1e6)
        self.sampler.opened(open_run(name, started_us=started_us, usage=usage))

    def close(self, name: str = "a", *, ended_us: int | None = None) -> None:
        self.sampler.closed(open_run(name), self.clock.time_us() if ended_us is None else ended_us)

    def finals(self, name: str = "a") -> list[NodeUsage]:
        return [usage for _, ref, final, usage in self.reports if final and ref == f"ref-{name}"]

    def checkpoints(self, name: str = "a") -> list[float]:
        return [at for at, ref, final, _ in self.reports if not final and ref == f"ref-{name}"]

    def looks(self, name: str = "a") -> list[float]:
        return [at for at, refs in self.source.looked_at if f"ref-{name}" in refs]

    def shows(self, name: str = "a") -> tuple[bool, bool]:
        """Whether the board shows levels of the job, and totals."""
        entry = self.board.jobs[f"ref-{name}"]
        return entry.reading is not None, entry.usage is not None

    def run(self, scene: Callable[[], Awaitable[None]]) -> None:
        """Play the scene while the sampler runs; then stop it, at once."""

        async def main() -> None:
            stop = asyncio.Event()
            task = asyncio.create_task(self.sampler.run(stop))
            await asyncio.sleep(0)
            await scene()
            began = self.clock.monotonic()
            stop.set()
            await task
            assert self.clock.monotonic() - began < 0.01, "the stop had to wait"

        moved_time.run(self.clock, main())
