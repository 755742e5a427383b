"""What is given up for want of room is put on record in the trail: once, all of it, and as soon as there is room."""

from __future__ import annotations

import asyncio
import uuid

import msgspec

from jobtrail.core.facts import EventRejected, GapRecorded, SamplesDropped, SamplesThinned, SamplesWritten
from jobtrail.core.gaps import EVERY_SECONDS, GapRecords
from jobtrail.core.intake import Intake
from jobtrail.core.own_events import OwnEvents
from jobtrail.core.ports import SpoolStatus
from jobtrail.domain.events import Event, EventKind, decode
from tests.fake_spool import MemorySpool
from tests.fakes import Facts, FakeClock, FakeLifecycle
from tests.unit import moved_time


class Spool(MemorySpool):
    """A spool that had to let forwarded events go before their time."""

    purged_early = 0

    def status(self) -> SpoolStatus:
        return msgspec.structs.replace(super().status(), purged_early=self.purged_early)


class Bench:
    def __init__(self) -> None:
        self.clock, self.facts = FakeClock(), Facts()
        self.spool = Spool(clock=self.clock)
        self.records = GapRecords(
            self.spool,
            OwnEvents(
                Intake(self.spool, FakeLifecycle(), self.facts),
                node="n1",
                cluster="c1",
                clock=self.clock,
                new_event_id=lambda: str(uuid.uuid4()),
            ),
            clock=self.clock,
            tell=self.facts,
        )

    @property
    def gaps(self) -> list[Event]:
        return [event for row in self.spool.rows if (event := decode(row.payload)).kind is EventKind.GAP]

    @property
    def shed(self) -> list[dict[str, int]]:
        return [event.gap.shed for event in self.gaps if event.gap is not None]


async def test_all_that_was_given_up_is_in_one_event() -> None:
    """Of each kind the sum, and the moment since when; other facts count for nothing."""
    bench = Bench()
    began = bench.clock.time_us()
    bench.records.observe(SamplesThinned(rows=3))
    bench.records.observe(SamplesThinned(rows=4))
    bench.records.observe(SamplesDropped(rows=2))
    bench.records.observe(EventRejected(reason="spool_full"))
    bench.records.observe(EventRejected(reason="invalid"))
    bench.records.observe(SamplesWritten(rows=9, seconds=0.1))
    bench.spool.purged_early = 5
    bench.clock.advance(60)
    await bench.records.record()
    told = {"samples_thinned": 7, "samples_dropped": 2, "events_refused": 1, "retained_events": 5}
    assert bench.shed == [told]
    assert bench.facts.of(GapRecorded) == [GapRecorded(shed=told)]
    (event,) = bench.gaps
    assert event.gap is not None
    assert event.time_us - event.gap.since_us == bench.clock.time_us() - began == 60_000_000
    assert event.job_id is None


async def test_nothing_is_told_twice_and_nothing_where_nothing_was_given_up() -> None:
    bench = Bench()
    bench.spool.purged_early = 5
    for _ in range(2):
        await bench.records.record()
    bench.spool.purged_early = 6
    await bench.records.record()
    assert bench.shed == [{"retained_events": 5}, {"retained_events": 1}]


async def test_while_the_spool_is_full_the_record_waits_and_grows() -> None:
    bench = Bench()
    bench.spool.full = True
    bench.records.observe(EventRejected(reason="spool_full"))
    await bench.records.record()
    assert bench.shed == []
    bench.records.observe(EventRejected(reason="spool_full"))
    bench.spool.full = False
    await bench.records.record()
    assert bench.shed == [{"events_refused": 2}]


def test_it_records_now_and_then_and_once_more_at_the_end() -> None:
    bench = Bench()

    async def main() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(bench.records.run(stop))
        bench.records.observe(SamplesDropped(rows=1))
        await asyncio.sleep(EVERY_SECONDS * 1.5)
        assert bench.shed == [{"samples_dropped": 1}]
        bench.records.observe(SamplesDropped(rows=2))
        stop.set()
        await running

    moved_time.run(bench.clock, main())
    assert bench.shed == [{"samples_dropped": 1}, {"samples_dropped": 2}]


def test_a_day_in_which_something_is_given_up_all_the_time_takes_few_records_and_loses_no_count() -> None:
    """A record is an event, and takes room that is short. What is left is told soon after the last was given up."""
    bench = Bench()

    async def main() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(bench.records.run(stop))
        for _ in range(8640):
            bench.records.observe(SamplesThinned(rows=3))
            await asyncio.sleep(EVERY_SECONDS)
        assert 100 < len(bench.gaps) < 160
        assert sum(shed["samples_thinned"] for shed in bench.shed) > 0.99 * 8640 * 3
        await asyncio.sleep(60)
        assert sum(shed["samples_thinned"] for shed in bench.shed) == 8640 * 3
        await asyncio.sleep(3600)  # after a quiet while the next is told at once
        bench.records.observe(SamplesThinned(rows=1))
        await asyncio.sleep(2 * EVERY_SECONDS)
        assert bench.shed[-1] == {"samples_thinned": 1}
        stop.set()
        await running

    moved_time.run(bench.clock, main())
