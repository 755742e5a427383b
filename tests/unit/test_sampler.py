"""Running jobs are looked at early and often, then on a common tick, and never shown with old or made-up values."""

import asyncio
import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.core.facts import JobSampled, ReadingMissed, SampleSourceFailed, SeriesShed
from jobtrail.core.runs.board import GRACE_SECONDS
from jobtrail.core.runs.sampler import Rhythm, Sampler
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.samples import NodeReading, Reading
from tests.fakes import FakeNodeSource
from tests.unit.runs import open_run
from tests.unit.sampling import SECOND, Bench


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
        assert bench.shows() == (False, True)  # what it held is gone; what it used stays true
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


def test_a_job_beyond_the_cap_is_told_and_measured_all_the_same() -> None:
    bench = Bench(max_jobs=1)

    async def scene() -> None:
        bench.open("a")
        bench.open("b")
        await asyncio.sleep(0.15)

    bench.run(scene)
    assert [fact.jobs for fact in bench.facts.of(SeriesShed)] == [1]
    assert {row.ref for row in bench.rows} == {"ref-a", "ref-b"}


def test_the_owner_of_an_open_run_is_known() -> None:
    """And of no other: neither one that ended nor one never heard of."""
    bench = Bench()

    async def scene() -> None:
        bench.open("a")
        target = open_run("a").target
        assert bench.sampler.owner_of(target.cluster, target.job_id) == 1001
        assert bench.sampler.owner_of("another cluster", target.job_id) is None
        bench.close("a")
        assert bench.sampler.owner_of(target.cluster, target.job_id) is None

    bench.run(scene)


def test_two_looks_in_a_row_leave_the_rate_as_it_was() -> None:
    """At a local job's end its counters are read twice within milliseconds, when all is over: that is no rate."""
    bench = Bench()

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(0.25)
        before = bench.board.jobs["ref-a"].cpu_percent
        await bench.sampler.last_look("c1", "slurm-a")
        await asyncio.sleep(0.001)
        await bench.sampler.last_look("c1", "slurm-a")
        assert len(bench.looks()) == 4
        assert bench.board.jobs["ref-a"].cpu_percent == before == pytest.approx(50.0)

    bench.run(scene)


def test_while_not_all_jobs_are_known_the_parents_growth_is_credited_to_nobody() -> None:
    """What an unknown job used is not charged to the one that happens to end; the books begin when all are known."""
    bench = Bench()
    bench.sampler.trust_parents(complete=False)

    async def scene() -> None:
        bench.open("early")
        bench.open("long")
        await asyncio.sleep(2)
        bench.source.end("early")
        bench.close("early")
        await asyncio.sleep(0.1)
        bench.sampler.trust_parents()
        await asyncio.sleep(2)
        bench.source.end("long")
        bench.close("long")
        await asyncio.sleep(0.1)

    bench.run(scene)
    (early,), (long,) = bench.finals("early"), bench.finals("long")
    assert early.cpu_usage_us == pytest.approx(1.6e6, abs=5000)  # of the last look
    assert early.sources["cpu"] == "last_sample"
    assert long.cpu_usage_us == pytest.approx(4.1e6, abs=5000)
    assert long.sources["cpu"] == "parent_counter"
