"""Readings wait for the store, within bounds: the oldest are shed, and counted."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from jobtrail.core.facts import ForwardFailed, SamplesDropped, SamplesThinned, SamplesWritten
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


async def test_the_oldest_are_shed_the_first_is_told_at_once_and_the_others_in_one_fact() -> None:
    """A store that is away for days costs one line of log now and then, not one for each reading."""
    bench = Bench(max_rows=3)
    rows = bench.add(1, 2, 3, 4)
    assert bench.facts == [SamplesDropped(rows=1)]
    rows += bench.add(5, 6)
    assert len(bench.facts) == 1
    await bench.buffer.flush()
    await bench.buffer.flush()
    assert bench.sink.rows == rows[3:]
    assert bench.facts.of(SamplesDropped) == [SamplesDropped(rows=1), SamplesDropped(rows=2)]
    assert [fact.rows for fact in bench.facts.of(SamplesWritten)] == [3]


async def test_what_is_shed_after_a_quiet_while_is_told_at_once_again() -> None:
    """Who puts it on record need not ask while nothing is shed."""
    bench = Bench(max_rows=1)
    bench.add(1, 2, 3)
    for _ in range(2):
        bench.buffer.tell_shed()
    bench.add(4)
    assert bench.facts.of(SamplesDropped) == [SamplesDropped(rows=1)] * 3


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


async def test_rows_that_the_store_did_not_take_are_not_told_as_written() -> None:
    """It has told of those as dropped: each row is counted once."""

    class Particular(MemorySampleSink):
        async def write(self, rows: Sequence[SampleRow]) -> int:
            return await super().write(rows[1:])

    bench = Bench(Particular())
    bench.add(1, 2, 3)
    await bench.buffer.flush()
    assert [fact.rows for fact in bench.facts.of(SamplesWritten)] == [2]


async def test_many_rows_go_in_several_batches() -> None:
    bench = Bench()
    rows = bench.add(*range(BATCH_ROWS + 1))
    await bench.buffer.flush()
    assert bench.sink.rows == rows
    assert [fact.rows for fact in bench.facts.of(SamplesWritten)] == [BATCH_ROWS, 1]


class SheddingSink(MemorySampleSink):
    """While it writes, more readings come in than there is room for."""

    bench: Bench

    async def write(self, rows: list[SampleRow]) -> int:  # type: ignore[override]
        taken = await super().write(rows)
        if len(self.rows) == len(rows):
            self.late = self.bench.add(7, 8)
        return taken


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


class Reading(NamedTuple):
    """The `number`-th reading of a series."""

    series: str
    number: int


class Thinning:
    """A buffer of ten rows that thins out."""

    def __init__(self) -> None:
        self.clock, self.facts, self.sink = FakeClock(), Facts(), MemorySampleSink()
        self.buffer: SampleBuffer[Reading] = SampleBuffer(
            self.sink,  # type: ignore[arg-type]  # it keeps rows of any kind
            clock=self.clock,
            tell=self.facts,
            backoff=Backoff(1, 8),
            max_rows=10,
            series_of=lambda row: row.series,
        )

    def add(self, series: str, *numbers: int) -> None:
        for number in numbers:
            self.buffer.add(Reading(series, number))

    async def written(self) -> list[tuple[str, int]]:
        await self.buffer.flush()
        return [(row.series, row.number) for row in self.sink.rows]  # type: ignore[attr-defined]

    def count(self) -> tuple[int, int]:
        return (
            sum(fact.rows for fact in self.facts.of(SamplesThinned)),
            sum(fact.rows for fact in self.facts.of(SamplesDropped)),
        )


async def test_a_queue_half_full_keeps_one_of_four_of_each_series() -> None:
    """Two jobs in turn: neither is thinned out for the other's sake."""
    bench = Thinning()
    bench.add("a", *range(5))
    for number in range(100, 108):
        bench.add("a", number)
        bench.add("b", number)
    kept = await bench.written()
    assert [number for series, number in kept if series == "a"] == [0, 1, 2, 3, 4, 100, 104]
    assert [number for series, number in kept if series == "b"] == [100, 104]
    assert bench.count() == (12, 0)


async def test_a_full_queue_gives_up_every_second_row_then_the_oldest() -> None:
    bench = Thinning()
    bench.add("a", *range(25))  # 0 to 4, then 5, 9, 13, 17, 21; the next one kept is one too many
    bench.add("a", 25)
    assert await bench.written() == [("a", number) for number in (0, 2, 4, 9, 17, 25)]
    assert bench.count() == (20, 0)
    for number in range(11):
        bench.add(f"series {number}", 0)
    assert len(await bench.written()) == 6 + 10
    assert bench.count() == (20, 1)


async def test_when_the_queue_is_short_again_every_reading_is_kept() -> None:
    bench = Thinning()
    bench.add("a", *range(9))
    await bench.written()
    bench.add("a", 20, 21, 22)
    assert [number for _, number in await bench.written()][-3:] == [20, 21, 22]


async def test_rows_that_are_being_written_are_not_given_up() -> None:
    """They would be counted as given up and be in the store."""
    bench = Thinning()
    bench.add("a", *range(6))
    write = bench.sink.write

    async def slow(rows: Sequence[SampleRow]) -> None:
        bench.sink.write = write  # type: ignore[method-assign]
        bench.add("a", *range(100, 125))
        await write(rows)

    bench.sink.write = slow  # type: ignore[method-assign]
    first = await bench.written()
    assert [number for _, number in first][:6] == list(range(6))
    assert len(set(first)) == len(first)
    await bench.buffer.flush()  # tells what was given up meanwhile
    assert len(first) + sum(bench.count()) == 6 + 25
