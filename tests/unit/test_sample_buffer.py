"""Readings wait for the store, within bounds: the oldest are shed, and counted."""

import asyncio

import pytest

from jobtrail.core.facts import ForwardFailed, SamplesDropped, SamplesWritten
from jobtrail.core.ports import SampleRow
from jobtrail.core.sample_buffer import BATCH_ROWS, FLUSH_SECONDS, SampleBuffer
from jobtrail.core.waiting import Backoff
from jobtrail.domain.errors import StoreUnavailable
from tests.fakes import Facts, FakeClock, MemorySampleSink
from tests.unit import moved_time
from tests.unit.runs import row


class Bench:
    """A buffer with its surroundings."""

    def __init__(self, sink: MemorySampleSink | None = None, max_rows: int = 20_000) -> None:
        self.clock, self.facts, self.sink = FakeClock(), Facts(), sink or MemorySampleSink()
        self.buffer = SampleBuffer(
            self.sink, clock=self.clock, tell=self.facts, backoff=Backoff(1, 8), max_rows=max_rows
        )

    def add(self, *numbers: int) -> list[SampleRow]:
        rows = [row(number) for number in numbers]
        for one in rows:
            self.buffer.add(one)
        return rows


async def test_the_oldest_are_shed_and_counted_in_one_fact() -> None:
    """A store that is away for days costs one line of log now and then, not one for each reading."""
    bench = Bench(max_rows=3)
    rows = bench.add(1, 2, 3, 4, 5)
    assert bench.facts == []
    await bench.buffer.flush()
    await bench.buffer.flush()
    assert bench.sink.rows == rows[2:]
    assert bench.facts.of(SamplesDropped) == [SamplesDropped(rows=2)]
    assert [fact.rows for fact in bench.facts.of(SamplesWritten)] == [3]


async def test_rows_stay_while_the_store_is_away() -> None:
    bench = Bench()
    rows = bench.add(1, 2)
    bench.sink.unavailable = "away"
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await bench.buffer.flush()
    bench.sink.unavailable = None
    rows += bench.add(3)
    await bench.buffer.flush()
    assert bench.sink.rows == rows


def test_a_store_that_says_when_to_come_back_gets_no_rows_before() -> None:
    bench = Bench()
    bench.add(1)
    bench.sink.unavailable, bench.sink.retry_after_seconds = "busy", 60.0

    async def main() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(bench.buffer.run(stop))
        await asyncio.sleep(FLUSH_SECONDS + 1)
        stop.set()
        bench.sink.unavailable = None
        await running

    moved_time.run(bench.clock, main())
    (failed,) = bench.facts.of(ForwardFailed)
    assert 60 <= failed.retry_in_seconds <= 90


async def test_rows_that_the_store_refuses_are_dropped_and_counted() -> None:
    """Trying the same rows again could never help, and would hold up all that follow."""
    bench = Bench()
    bench.add(1, 2)
    bench.sink.refusing = True
    await bench.buffer.flush()
    bench.sink.refusing = False
    rows = bench.add(3)
    await bench.buffer.flush()
    assert bench.sink.rows == rows
    assert bench.facts.of(SamplesDropped) == [SamplesDropped(rows=2)]


async def test_many_rows_go_in_several_batches() -> None:
    bench = Bench()
    rows = bench.add(*range(BATCH_ROWS + 1))
    await bench.buffer.flush()
    assert bench.sink.rows == rows
    assert [fact.rows for fact in bench.facts.of(SamplesWritten)] == [BATCH_ROWS, 1]


class SheddingSink(MemorySampleSink):
    """While it writes, more readings come in than there is room for."""

    bench: Bench

    async def write(self, rows: list[SampleRow]) -> None:  # type: ignore[override]
        await super().write(rows)
        if len(self.rows) == len(rows):
            self.late = self.bench.add(7, 8)


async def test_rows_shed_during_a_write_do_not_take_newer_ones_with_them() -> None:
    sink = SheddingSink()
    bench = sink.bench = Bench(sink, max_rows=3)
    rows = bench.add(1, 2, 3)
    await bench.buffer.flush()
    assert sink.rows == [*rows, *sink.late]


async def test_without_a_store_nothing_is_kept() -> None:
    facts = Facts()
    buffer = SampleBuffer(None, clock=FakeClock(), tell=facts, backoff=Backoff())
    for number in range(3):
        buffer.add(row(number))
    await buffer.flush()
    assert facts == []


def test_rows_are_collected_for_a_moment_and_written_together() -> None:
    bench = Bench()

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(bench.buffer.run(stop))
        began = bench.clock.monotonic()
        for number in range(3):
            bench.add(number)
            await asyncio.sleep(0.4)
        assert bench.sink.rows == []
        await asyncio.sleep(FLUSH_SECONDS)
        assert len(bench.sink.rows) == 3
        assert bench.clock.monotonic() - began < FLUSH_SECONDS + 1.3
        stop.set()
        await task

    moved_time.run(bench.clock, main())
    assert len(bench.facts.of(SamplesWritten)) == 1


def test_a_store_that_is_away_is_tried_again_with_growing_delays_until_it_is_back() -> None:
    """The delays begin short again after a success."""
    bench = Bench()

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(bench.buffer.run(stop))
        for _ in range(2):
            bench.sink.unavailable = "away"
            bench.add(1)
            await asyncio.sleep(120)
            bench.sink.unavailable = None
            await asyncio.sleep(30)
        stop.set()
        await task

    moved_time.run(bench.clock, main())
    assert len(bench.sink.rows) == 2
    delays = [fact.retry_in_seconds for fact in bench.facts.of(ForwardFailed)]
    assert 20 <= len(delays) <= 60
    assert sum(delay <= 1 for delay in delays) == 2
    assert max(delays) <= 8
    assert all(fact.reason == "samples: away" for fact in bench.facts.of(ForwardFailed))


@pytest.mark.parametrize("away", [None, "away"])
def test_a_stop_ends_every_wait_at_once_and_writes_what_is_there(away: str | None) -> None:
    """Before anything came, while rows are collected, and in the delay after a failure."""
    for seconds in (0.0, 0.5, FLUSH_SECONDS + 0.1):
        bench = Bench()
        bench.sink.unavailable = away

        async def main(bench: Bench = bench, seconds: float = seconds) -> None:
            stop = asyncio.Event()
            task = asyncio.create_task(bench.buffer.run(stop))
            await asyncio.sleep(0)
            if seconds:
                bench.add(1)
            await asyncio.sleep(seconds)
            began = bench.clock.monotonic()
            stop.set()
            await task
            assert bench.clock.monotonic() - began < 0.01

        moved_time.run(bench.clock, main())
        assert len(bench.sink.rows) == (1 if seconds and not away else 0)
