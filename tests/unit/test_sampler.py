"""Running jobs are looked at early and often, then on a common tick, and settled once when they end."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.core.board import GRACE_SECONDS, Board
from jobtrail.core.facts import JobSampled, ReadingMissed, SampleSourceFailed
from jobtrail.core.ports import SampleRow
from jobtrail.core.sampler import UNREPORTED_RETRY_SECONDS, Rhythm, Sampler, Watched
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.samples import CpuTotals, Missed, NodeReading, Reading, Target
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


def test_a_job_is_looked_at_at_doubling_ages_and_then_on_the_common_tick() -> None:
    bench = Bench()
    bench.clock.advance(3.3)

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(61)

    born = bench.clock.monotonic()
    bench.run(scene)
    ages = [at - born for at in bench.looks()]
    assert ages[:8] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8], abs=0.002)
    ticks = bench.looks()[8:]
    assert ticks == pytest.approx([1020, 1035, 1050], abs=0.002)
    assert [row.reading.cpu_usage_us for row in bench.rows] == pytest.approx([age * 1e6 for age in ages], abs=2000)


def test_jobs_of_all_ages_share_one_look_on_the_tick() -> None:
    """One hop to a thread per source and tick, whatever the number of jobs."""
    bench = Bench()

    async def scene() -> None:
        for name in ("a", "b", "local-c"):
            bench.open(name, age=1000)
        await asyncio.sleep(16)

    bench.run(scene)
    assert [set(refs) for _, refs in bench.source.looked_at] == [{"ref-a", "ref-b"}]
    assert [refs for _, refs in bench.other.looked_at] == [("ref-local-c",)]
    assert [fact.readings for fact in bench.facts.of(JobSampled)] == [2, 1]


@given(st.floats(0.05, 2), st.floats(1.001, 3600), st.floats(0, 1e6), st.floats(0, 1e4))
def test_a_look_is_never_older_than_half_a_life_nor_than_an_interval(
    first: float, times: float, born: float, joined_at_age: float
) -> None:
    """At any age up to the interval, whenever we joined; afterwards looks lie on multiples of the interval."""
    rhythm = Rhythm(first_seconds=first, interval_seconds=first * times)
    now = born + joined_at_age
    looks = []
    for _ in range(40):
        now, before = rhythm.next_look(now - born, now), now
        assert before < now <= before + rhythm.interval_seconds * 1.001
        looks.append(now - born)
    for looked, following in pairwise(looks):
        assert looked >= min(following, rhythm.interval_seconds) / 2 - 0.002
        if looked >= rhythm.interval_seconds:
            ticks = (following + born) / rhythm.interval_seconds
            assert ticks == pytest.approx(round(ticks), abs=1e-6 * max(1, ticks))


def test_setting_the_wall_clock_disturbs_no_look() -> None:
    """Hours forward, then back: looks keep their steady rhythm and nothing is looked at twice."""
    plain, moved = Bench(), Bench()
    for bench, step in ((plain, 0.0), (moved, 7200.0)):

        async def scene(bench: Bench = bench, step: float = step) -> None:
            bench.open()
            await asyncio.sleep(1)
            bench.clock.set_wall_by(step)
            await asyncio.sleep(20)
            bench.clock.set_wall_by(-2 * step)
            await asyncio.sleep(40)

        bench.run(scene)
    assert moved.looks() == pytest.approx(plain.looks(), abs=0.001)
    assert len(plain.looks()) == 11


def test_a_start_in_the_future_is_an_age_of_nothing() -> None:
    """The prolog's clock was ahead of ours."""
    bench = Bench()

    async def scene() -> None:
        bench.open(age=-30)
        await asyncio.sleep(0.15)

    bench.run(scene)
    assert len(bench.looks()) == 1


def test_an_ended_job_is_reported_once_and_let_go() -> None:
    """Its final usage holds what the parent's counter says of its last moments; its last values stay on show."""
    bench = Bench()

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(3)
        bench.source.end("a")
        await asyncio.sleep(0.5)
        bench.close()
        bench.close()
        await asyncio.sleep(1000)

    bench.run(scene)
    (usage,) = bench.finals()
    assert usage.cpu_usage_us == pytest.approx(3 * SECOND, abs=2000)
    assert usage.sources == {"usage": "cgroup_v2", "cpu": "parent_counter"}
    assert usage.sample_count == 5
    assert bench.source.attached == {}
    assert bench.checkpoints() == []
    assert len(bench.looks()) == 6 + 1  # ages 0.1 to 3.2, by when it was gone, and once when it was closed


def test_a_job_that_came_and_went_before_any_look_is_measured_all_the_same() -> None:
    """Both words of it were waiting when the sampler turned to them, its counter was never seen."""
    bench = Bench()

    async def scene() -> None:
        bench.open("first")
        await asyncio.sleep(5)
        bench.open("a")
        bench.clock.advance(0.05)
        bench.source.end("a")
        bench.close("a")
        await asyncio.sleep(1)

    bench.run(scene)
    (usage,) = bench.finals()
    assert usage.cpu_usage_us == pytest.approx(0.05 * SECOND, abs=10)
    assert (usage.sample_count, usage.memory_peak_bytes) == (0, None)


def test_jobs_that_end_together_share_what_the_parent_grew_by() -> None:
    """And say that they did."""
    bench = Bench()

    async def scene() -> None:
        for name in ("a", "b"):
            bench.open(name)
        await asyncio.sleep(1)
        for name in ("a", "b"):
            bench.source.end(name)
            bench.close(name)
        await asyncio.sleep(1)

    bench.run(scene)
    finals = [*bench.finals("a"), *bench.finals("b")]
    assert [usage.sources["cpu"] for usage in finals] == ["parent_counter_shared_by_2"] * 2
    assert sum(usage.cpu_usage_us or 0 for usage in finals) == pytest.approx(2 * SECOND, abs=4000)


def test_without_a_parent_counter_the_last_reading_stands() -> None:
    bench = Bench()

    async def scene() -> None:
        bench.open()
        bench.source.parent_us = None
        await asyncio.sleep(1)
        bench.source.end("a")
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)
    (usage,) = bench.finals()
    assert usage.cpu_usage_us == pytest.approx(0.8 * SECOND, abs=2000)
    assert "cpu" not in usage.sources


def test_not_there_yet_then_there_then_gone() -> None:
    """A prolog runs before the cgroup exists, and the cgroup goes before the epilog runs: neither is a failure."""
    bench = Bench()

    async def scene() -> None:
        bench.open(alive=False)
        await asyncio.sleep(0.5)
        assert bench.shows() == (False, False)
        assert bench.rows == []
        bench.source.start("a")
        await asyncio.sleep(2)
        assert bench.shows() == (True, True)
        bench.source.end("a")
        await asyncio.sleep(60)
        assert bench.shows() == (True, True)
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)
    assert bench.facts.of(ReadingMissed) == []
    assert len(bench.rows) == 2
    (usage,) = bench.finals()
    assert usage.cpu_usage_us == pytest.approx(2 * SECOND, abs=2000)


def test_an_unreadable_job_is_told_and_shows_no_old_levels() -> None:
    bench = Bench()

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(0.5)
        bench.source.unreadable["slurm-a"] = "memory.current: permission denied"
        await asyncio.sleep(0.5)
        assert bench.shows() == (False, True)
        assert bench.board.jobs["ref-a"].cpu_percent is None
        bench.source.unreadable.clear()
        await asyncio.sleep(1)
        assert bench.shows() == (True, True)

    bench.run(scene)
    missed = ReadingMissed(job_id="slurm-a", reason="unreadable", detail="memory.current: permission denied")
    assert bench.facts.of(ReadingMissed) == [missed]


def test_a_reading_without_cpu_time_is_kept_for_what_it_has() -> None:
    """The cpu controller may be off: its values stay absent, memory is known, and the end makes nothing up."""
    bench = Bench()

    async def scene() -> None:
        bench.open(alive=False)
        bench.source.readings["slurm-a"] = Reading(
            time_us=1, source="cgroup_v2", memory_peak_bytes=7, absent={"cpu_usage_us": "no cpu controller"}
        )
        await asyncio.sleep(1)
        bench.source.readings.clear()
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)
    (usage,) = bench.finals()
    assert (usage.cpu_usage_us, usage.memory_peak_bytes) == (None, 7)
    assert usage.absent == {"cpu_usage_us": "no cpu controller"}
    assert [row.cpu_percent for row in bench.rows] == [None] * 4


def test_a_source_that_raises_costs_its_values_and_not_the_daemon() -> None:
    """It is told by name, jobs of another source are read all the same, and it is asked again."""
    bench = Bench()

    async def scene() -> None:
        bench.open("a")
        bench.open("local-b")
        await asyncio.sleep(0.5)
        bench.source.failing = "struct changed"
        await asyncio.sleep(0.5)
        assert bench.shows() == (False, True)
        assert bench.shows("local-b") == (True, True)
        bench.source.failing = None
        await asyncio.sleep(1)
        assert bench.shows() == (True, True)

    bench.run(scene)
    failed = SampleSourceFailed(source="Cpus", reason="RuntimeError: struct changed")
    assert bench.facts.of(SampleSourceFailed) == [failed]


def test_counters_that_could_not_be_read_credit_nobody_with_what_they_hold() -> None:
    """All that the parent ever counted must not fall on the next job that ends."""
    bench = Bench()

    async def scene() -> None:
        for name in ("a", "b", "c"):
            bench.open(name)
        await asyncio.sleep(10)
        bench.source.end("a")
        bench.source.failing = "read error"
        bench.close("a")
        await asyncio.sleep(1)
        bench.source.failing = None
        bench.source.end("b")
        bench.close("b")
        await asyncio.sleep(1)
        bench.source.end("c")
        bench.close("c")
        await asyncio.sleep(1)

    bench.run(scene)
    (first,), (second,), (third,) = bench.finals("a"), bench.finals("b"), bench.finals("c")
    for usage in (first, second):
        assert usage.cpu_usage_us == pytest.approx(6.4 * SECOND, abs=2000)
        assert "cpu" not in usage.sources
    assert third.cpu_usage_us == pytest.approx(12 * SECOND, abs=2000)
    assert third.sources["cpu"] == "parent_counter"


def test_a_final_report_that_is_not_taken_is_tried_again_now_and_then() -> None:
    """The spool is full. Other jobs' looks go on and do not bring the next try forward; it is taken once."""
    bench = Bench()

    async def scene() -> None:
        bench.open("a")
        bench.open("b")
        await asyncio.sleep(2)
        bench.source.end("a")
        bench.full = True
        bench.close("a")
        await asyncio.sleep(21)
        bench.full = False
        await asyncio.sleep(60)

    bench.run(scene)
    gaps = [later - earlier for earlier, later in pairwise(bench.refused)]
    assert len(bench.refused) == 5
    assert all(gap >= UNREPORTED_RETRY_SECONDS - 0.001 for gap in gaps)
    assert len(bench.finals("a")) == 1


def test_a_running_job_is_checkpointed_every_ten_minutes() -> None:
    """With its usage so far; a job of which nothing was ever read has nothing to say."""
    bench = Bench()

    async def scene() -> None:
        bench.open("a")
        bench.open("silent", alive=False)
        await asyncio.sleep(1900)

    began = bench.clock.monotonic()
    bench.run(scene)
    at_checkpoints, at_stop = bench.checkpoints("a")[:-1], bench.checkpoints("a")[-1]
    assert [at - began for at in at_checkpoints] == pytest.approx([605, 1205, 1805], abs=1)
    assert at_stop - began == pytest.approx(1900, abs=0.1)
    assert bench.checkpoints("silent") == []
    assert [usage.cpu_usage_us for _, _, _, usage in bench.reports] == pytest.approx(
        [605 * SECOND, 1205 * SECOND, 1805 * SECOND, 1895 * SECOND], abs=20_000
    )


def test_a_stop_settles_what_ended_and_checkpoints_what_runs() -> None:
    """Also what was waiting for its next try."""
    bench = Bench()

    async def scene() -> None:
        for name in ("a", "b", "c"):
            bench.open(name)
        await asyncio.sleep(1)
        bench.full = True
        bench.source.end("c")
        bench.close("c")
        await asyncio.sleep(0.1)
        bench.full = False
        bench.source.end("b")
        bench.close("b")

    bench.run(scene)
    told = [(ref, final) for _, ref, final, _ in bench.reports]
    assert told == [("ref-c", True), ("ref-b", True), ("ref-a", False)]


def test_a_restarted_daemon_counts_on_from_the_last_checkpoint() -> None:
    """Usage never shrinks, and an old job waits for the tick."""
    bench = Bench()
    before = NodeUsage(cpu_usage_us=500 * SECOND, memory_peak_bytes=9999, sample_count=40)

    async def scene() -> None:
        bench.open(age=3600, usage=before)
        await asyncio.sleep(15)

    bench.run(scene)
    assert bench.looks() == pytest.approx([1005], abs=0.002)
    entry = bench.board.jobs["ref-a"]
    assert entry.usage is not None
    assert (entry.usage.cpu_usage_us, entry.usage.memory_peak_bytes) == (500 * SECOND, 9999)
    assert entry.usage.sample_count == 41
    assert entry.usage.covered_us == pytest.approx(3605 * SECOND, abs=10_000)


def test_a_last_look_reads_the_job_it_names_at_once() -> None:
    """By cluster and job id, as the sender of an end knows no ref."""
    bench = Bench()

    async def scene() -> None:
        bench.open("a")
        bench.open("b")
        await asyncio.sleep(1)
        for cluster, job_id in (("c1", "slurm-a"), ("c2", "slurm-b"), ("c1", "slurm-x")):
            await bench.sampler.last_look(cluster, job_id)
        assert bench.source.looked_at[-1] == (bench.clock.monotonic(), ("ref-a",))

    bench.run(scene)
    assert bench.rows[-1].reading.cpu_usage_us == pytest.approx(1 * SECOND, abs=2000)


def test_the_board_shows_what_was_read_and_what_share_of_the_cpus_it_is() -> None:
    bench = Bench()

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(0.15)
        entry = bench.board.jobs["ref-a"]
        assert entry.cpu_percent is None
        await asyncio.sleep(0.1)
        assert entry.cpu_percent == pytest.approx(50.0)
        assert bench.rows[-1].cpu_percent == entry.cpu_percent
        bench.source.end("a")
        bench.close(ended_us=77)
        await asyncio.sleep(1)
        assert entry.ended_us == 77
        assert bench.board.live_jobs() == 0
        await asyncio.sleep(GRACE_SECONDS + 15)
        assert bench.board.jobs == {}

    bench.run(scene)


class FailingNode(FakeNodeSource):
    """A node that cannot be read while `failing`."""

    failing = False

    def read_node(self) -> NodeReading:
        if self.failing:
            raise OSError("no /proc/stat")
        return super().read_node()


def test_the_node_is_looked_at_on_every_tick_and_never_shown_old() -> None:
    bench = Bench()
    node = FailingNode(NodeReading(time_us=0, cpu_busy_us=0, cpu_total_us=0))
    bench.sampler = Sampler(
        source_for=lambda _: bench.source,
        node_source=node,
        board=bench.board,
        add_row=bench.rows.append,
        report=bench._report,
        clock=bench.clock,
        tell=bench.facts,
        rhythm=Rhythm(),
    )

    def shown() -> tuple[NodeReading | None, float | None]:
        return bench.board.node, bench.board.node_cpu_percent

    async def scene() -> None:
        await asyncio.sleep(0.1)
        assert shown() == (node.reading, None)
        node.reading = msgspec.structs.replace(node.reading, cpu_busy_us=30, cpu_total_us=40)
        await asyncio.sleep(15)
        assert shown() == (node.reading, 75.0)
        node.failing = True
        await asyncio.sleep(15)
        assert shown() == (None, None)
        node.failing = False
        await asyncio.sleep(15)
        assert shown() == (node.reading, None)

    began = bench.clock.monotonic()
    bench.run(scene)
    assert node.looks == 3
    assert math.floor(bench.clock.monotonic() - began) == 45
    assert bench.facts.of(SampleSourceFailed) == [
        SampleSourceFailed(source="FailingNode", reason="OSError: no /proc/stat")
    ]


@given(st.data())
def test_whatever_comes_and_goes_every_end_is_reported_once_and_nothing_is_made_up(data: st.DataObject) -> None:
    """Random lives of jobs: final reports are exactly the ended runs, and CPU seconds add up to what was burned."""
    bench = Bench(rhythm=Rhythm(interval_seconds=5), max_jobs=3)
    lives = data.draw(
        st.lists(st.tuples(st.floats(0, 20), st.floats(0.01, 20), st.floats(0, 2)), min_size=1, max_size=6)
    )
    spent: dict[str, float] = {}

    async def live(name: str, begin: float, length: float, lag: float) -> None:
        await asyncio.sleep(begin)
        bench.open(name)
        born = bench.clock.monotonic()
        await asyncio.sleep(length)
        spent[name] = (bench.clock.monotonic() - born) * 1e6
        bench.source.end(name)
        await asyncio.sleep(lag)
        bench.close(name)

    async def scene() -> None:
        await asyncio.gather(*(live(str(number), *life) for number, life in enumerate(lives)))
        await asyncio.sleep(1)

    bench.run(scene)
    assert sorted(spent) == sorted(ref.removeprefix("ref-") for _, ref, final, _ in bench.reports if final)
    for name, own in spent.items():
        (usage,) = bench.finals(name)
        if usage.sources.get("cpu") == "parent_counter":
            assert usage.cpu_usage_us == pytest.approx(own, abs=10)
        assert usage.cpu_usage_us is not None
    total = sum(usage.cpu_usage_us or 0 for _, _, final, usage in bench.reports if final)
    assert total <= sum(spent.values()) + 10
    assert bench.source.attached == {}
