"""A job that ends is settled with its parent's counter and reported once, whatever happens meanwhile."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.core.runs.sampler import UNREPORTED_RETRY_SECONDS, Rhythm
from tests.unit.sampling import SECOND, Bench


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
        assert usage.sources["cpu"] == "last_sample"
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
            # Of two that ended between looks, what is shared counts as the counter's word where it is 1 % at most.
            assert usage.cpu_usage_us == pytest.approx(own, rel=0.01, abs=10)
        assert usage.cpu_usage_us is not None
    total = sum(usage.cpu_usage_us or 0 for _, _, final, usage in bench.reports if final)
    assert total <= sum(spent.values()) + 10
    assert bench.source.attached == {}
