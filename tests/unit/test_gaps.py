"""What is given up for want of room is put on record in the trail: once, all of it, and as soon as there is room."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from jobtrail.core.facts import (
    ChoreFailed,
    EventAccepted,
    EventRejected,
    Fact,
    GapRecorded,
    SamplesDropped,
    SamplesThinned,
    SamplesWritten,
)
from jobtrail.core.intake import Intake
from jobtrail.core.ports import SpoolStatus
from jobtrail.core.trail.gap_ports import Tally
from jobtrail.core.trail.gaps import EVERY_SECONDS, LOOK_SECONDS, QUIET_SECONDS, STILL_SECONDS, GapRecords
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.domain.events import Event, EventKind, decode
from tests.fake_spool import MemorySpool
from tests.fakes import Facts, FakeClock, FakeLifecycle
from tests.unit import moved_time

ACCEPTED = EventAccepted(kind="checkpoint", event_id="e", job_id="slurm-1", seq=1)


class Spool(MemorySpool):
    """A spool that had to let forwarded events go before their time."""

    purged_early = 0

    def status(self) -> SpoolStatus:
        return msgspec.structs.replace(super().status(), purged_early=self.purged_early)


class Tallies:
    """A TallyLog in memory."""

    def __init__(self) -> None:
        self.kept: Tally | None = None
        self.written: list[Tally] = []
        self.broken = False

    async def read(self) -> Tally | None:
        if self.broken:
            raise OSError("no such disk")
        return self.kept

    async def write(self, tally: Tally) -> None:
        if self.broken:
            raise OSError("no room")
        self.kept = tally
        self.written.append(tally)


class Bench:
    """A daemon. `after`: another one on the same disk, which was killed."""

    def __init__(self, after: Bench | None = None, ask: tuple[Callable[[], None], ...] = ()) -> None:
        self.facts = Facts()
        self.clock = FakeClock() if after is None else after.clock
        self.spool = Spool(clock=self.clock) if after is None else after.spool
        self.tallies = Tallies() if after is None else after.tallies
        self.records = GapRecords(
            self.spool,
            OwnEvents(
                Intake(self.spool, FakeLifecycle(), self.facts),
                node="n1",
                cluster="c1",
                clock=self.clock,
                new_event_id=lambda: str(uuid.uuid4()),
            ),
            self.tallies,
            clock=self.clock,
            tell=self.facts,
            ask=ask,
        )

    def lives(self, during: Callable[[], Awaitable[None]], *, killed: bool = False) -> None:
        """Run it for as long as `during` takes; then it stops, or is killed."""

        async def main() -> None:
            stop = asyncio.Event()
            running = asyncio.create_task(self.records.run(stop))
            await during()
            if killed:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            else:
                stop.set()
                await running

        moved_time.run(self.clock, main())

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


def test_hours_in_which_something_is_given_up_all_the_time_takes_few_records_and_loses_no_count() -> None:
    """A record is an event, and takes room that is short. What is left is told soon after the last was given up."""
    bench = Bench()

    async def main() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(bench.records.run(stop))
        for _ in range(720):
            bench.records.observe(SamplesThinned(rows=3))
            await asyncio.sleep(EVERY_SECONDS)
        assert 10 < len(bench.gaps) < 25
        assert sum(shed.get("samples_thinned", 0) for shed in bench.shed) > 0.85 * 720 * 3
        await asyncio.sleep(60)
        assert sum(shed.get("samples_thinned", 0) for shed in bench.shed) == 720 * 3
        await asyncio.sleep(3600)  # after a quiet while the next is told at once
        bench.records.observe(SamplesThinned(rows=1))
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert bench.shed[-1] == {"samples_thinned": 1}
        stop.set()
        await running

    moved_time.run(bench.clock, main())


def test_the_first_that_is_given_up_is_told_at_once_and_the_end_when_nothing_more_was() -> None:
    """So a reader of the trail sees that something is being given up, and that it is over."""
    bench = Bench()

    async def during() -> None:
        await asyncio.sleep(100)
        bench.records.observe(SamplesThinned(rows=3))
        await asyncio.sleep(1.5 * LOOK_SECONDS)
        assert bench.shed == [{"samples_thinned": 3}]
        await asyncio.sleep(STILL_SECONDS + 2 * LOOK_SECONDS)

    bench.lives(during)
    told = [event.gap for event in bench.gaps if event.gap is not None]
    assert [(gap.shed, gap.goes_on) for gap in told] == [({"samples_thinned": 3}, True), ({}, False)]
    assert [gap.uncounted_since_us for gap in told] == [None, None]
    assert told[1].since_us == bench.gaps[0].time_us


def test_a_daemon_that_is_killed_loses_the_counts_of_a_second_and_the_next_says_so() -> None:
    first = Bench()
    ended_us = 0

    async def during() -> None:
        nonlocal ended_us
        for _ in range(5):
            first.records.observe(SamplesThinned(rows=10))
            await asyncio.sleep(1.5 * LOOK_SECONDS)
        first.records.observe(SamplesThinned(rows=1))  # nobody will know of it
        ended_us = first.clock.time_us()

    first.lives(during, killed=True)
    assert sum(shed["samples_thinned"] for shed in first.shed) < 50
    first.clock.advance(3600)
    second = Bench(after=first)

    async def short() -> None:
        await asyncio.sleep(5)

    second.lives(short)
    assert sum(shed.get("samples_thinned", 0) for shed in second.shed) == 50
    last = second.gaps[-1].gap
    assert last is not None
    assert not last.goes_on
    assert last.uncounted_since_us is not None
    assert 0 <= ended_us - last.uncounted_since_us <= 2_000_000
    count = len(second.gaps)
    third = Bench(after=second)  # the second had its last word
    third.lives(short)
    assert len(third.gaps) == count


def test_what_a_full_spool_kept_from_the_record_is_told_by_the_daemon_after_a_stop_or_a_kill() -> None:
    for killed in (False, True):
        first = Bench()
        first.spool.full = True

        async def during(bench: Bench = first) -> None:
            bench.records.observe(EventRejected(reason="spool_full"))
            bench.spool.purged_early = 4
            await asyncio.sleep(60)

        first.lives(during, killed=killed)
        first.spool.purged_early = 0  # it is of each daemon's life
        second = Bench(after=first)

        async def later(bench: Bench = second) -> None:
            bench.records.observe(EventRejected(reason="spool_full"))
            await asyncio.sleep(60)
            assert bench.shed == []
            bench.spool.full = False
            await asyncio.sleep(EVERY_SECONDS + 2)

        second.lives(later)
        assert second.shed[0] == {"events_refused": 2, "retained_events": 4}
        told = second.gaps[0].gap
        assert told is not None
        assert (told.uncounted_since_us is not None) == killed


@pytest.mark.parametrize("goes_on", [False, True])
async def test_what_was_told_just_before_the_kill_is_not_told_again(goes_on: bool) -> None:
    first = Bench()
    first.records.observe(SamplesDropped(rows=7))
    await first.records.record()
    told = first.gaps[0]
    first.tallies.kept = Tally(
        event_id=told.event_id, since_us=1, noted_us=told.time_us, shed={"samples_dropped": 6}, goes_on=goes_on
    )
    second = Bench(after=first)
    await second.records.resume()
    assert second.shed == [{"samples_dropped": 7}, *([{}] if goes_on else [])]
    assert [event.gap.uncounted_since_us for event in second.gaps if event.gap] == (
        [None, told.time_us] if goes_on else [None]
    )
    assert second.tallies.kept is not None
    assert (second.tallies.kept.shed, second.tallies.kept.goes_on) == ({}, False)


class Cut(BaseException):
    """The daemon is killed."""


def test_a_kill_right_after_a_record_leaves_no_record_open_and_does_not_stop_the_next_daemon() -> None:
    """After a quiet while the first that is given up is told at once: no more than that was noted before."""
    first = Bench()

    async def told_and_over() -> None:
        first.records.observe(SamplesDropped(rows=1))
        await asyncio.sleep(2 * STILL_SECONDS)

    first.lives(told_and_over)
    second = Bench(after=first)

    def cut(fact: Fact) -> None:
        second.facts(fact)
        if isinstance(fact, GapRecorded):
            raise Cut

    second.records._tell = cut

    async def told() -> None:
        await asyncio.sleep(60)
        second.records.observe(SamplesDropped(rows=7))
        await asyncio.sleep(60)

    with pytest.raises(Cut):
        second.lives(told)
    third = Bench(after=second)

    async def later() -> None:
        await asyncio.sleep(60)
        third.records.observe(SamplesDropped(rows=2))
        await asyncio.sleep(60)

    third.lives(later)
    assert third.shed == [{"samples_dropped": 1}, {}, {"samples_dropped": 7}, {}, {"samples_dropped": 2}, {}]
    gaps = [event.gap for event in third.gaps if event.gap is not None]
    assert [gap.goes_on for gap in gaps] == [True, False, True, False, True, False]
    assert [gap.uncounted_since_us is not None for gap in gaps] == [False, False, False, True, False, False]


def test_a_kill_after_a_record_where_nothing_could_be_noted_does_not_stop_the_next_daemon() -> None:
    first = Bench()
    first.records.observe(SamplesDropped(rows=7))
    first.lives(lambda: asyncio.sleep(1))
    (told,) = first.gaps
    first.tallies.kept = Tally(event_id=told.event_id, since_us=1, noted_us=told.time_us - 1, shed={})
    second = Bench(after=first)

    async def later() -> None:
        await asyncio.sleep(60)
        second.records.observe(SamplesDropped(rows=2))
        await asyncio.sleep(60)

    second.lives(later)
    assert second.shed == [{"samples_dropped": 7}, {"samples_dropped": 2}, {}]
    (_, gap, _) = [event.gap for event in second.gaps if event.gap is not None]
    assert gap.since_us >= told.time_us


def test_that_counts_are_missing_is_not_forgotten_by_a_second_kill() -> None:
    first = Bench()
    first.spool.full = True

    async def during() -> None:
        first.records.observe(EventRejected(reason="spool_full"))
        await asyncio.sleep(5)

    first.lives(during, killed=True)
    second = Bench(after=first)
    second.lives(during, killed=True)
    assert first.tallies.kept is not None
    noted_us = first.tallies.written[0].noted_us
    assert first.tallies.kept.uncounted_since_us == noted_us
    first.spool.full = False
    third = Bench(after=second)
    third.lives(lambda: asyncio.sleep(1))
    told = third.gaps[-1].gap
    assert told is not None
    assert (told.shed, told.uncounted_since_us) == ({"events_refused": 1}, noted_us)


def test_parts_that_tell_late_are_asked_each_second_while_something_is_given_up_and_not_while_nothing_is() -> None:
    """A daemon with nothing to do does nothing: a look every second was most of an idle daemon's work."""
    asked: list[float] = []
    bench = Bench(ask=(lambda: asked.append(bench.clock.monotonic()),))

    async def during() -> None:
        await asyncio.sleep(100)
        assert len(asked) <= 100 / QUIET_SECONDS
        asked.clear()
        bench.records.observe(SamplesDropped(rows=1))
        await asyncio.sleep(10)
        assert len(asked) in (9, 10)
        await asyncio.sleep(2 * STILL_SECONDS)
        assert not bench.records._open
        asked.clear()
        await asyncio.sleep(100)
        assert len(asked) <= 100 / QUIET_SECONDS

    bench.lives(during)


def test_events_that_went_before_their_time_are_told_without_anything_else_being_given_up() -> None:
    bench = Bench()

    async def during() -> None:
        await asyncio.sleep(100)
        bench.records.observe(ACCEPTED)
        await asyncio.sleep(100)
        assert bench.gaps == []
        bench.spool.purged_early = 4
        bench.records.observe(ACCEPTED)
        await asyncio.sleep(1.5 * LOOK_SECONDS)
        assert bench.shed == [{"retained_events": 4}]
        await asyncio.sleep(100)
        bench.spool.purged_early = 5  # after some were forwarded, and without a word
        await asyncio.sleep(QUIET_SECONDS + 2 * LOOK_SECONDS)
        assert sum(shed.get("retained_events", 0) for shed in bench.shed) == 5

    bench.lives(during)


def test_after_a_long_time_of_giving_up_and_a_quiet_one_records_come_as_often_as_at_first() -> None:
    bench = Bench()
    apart: list[float] = []

    async def giving_up(seconds: int) -> None:
        for _ in range(seconds):
            bench.records.observe(SamplesThinned(rows=1))
            await asyncio.sleep(1)

    async def during() -> None:
        await giving_up(3000)
        await asyncio.sleep(5400)
        before = len(bench.gaps)
        await giving_up(60)
        began = bench.gaps[before].time_us
        apart.extend((event.time_us - began) / 1e6 for event in bench.gaps[before:])

    bench.lives(during)
    assert apart[:3] == pytest.approx([0, EVERY_SECONDS, 3 * EVERY_SECONDS], abs=2.1 * LOOK_SECONDS)


def test_where_nothing_can_be_noted_that_is_told_once_and_records_go_on() -> None:
    bench = Bench()
    bench.tallies.broken = True

    async def during() -> None:
        for _ in range(5):
            bench.records.observe(SamplesDropped(rows=1))
            await asyncio.sleep(2)
        bench.tallies.broken = False
        bench.records.observe(SamplesDropped(rows=1))
        await asyncio.sleep(2)

    bench.lives(during)
    reasons = [fact.reason for fact in bench.facts.of(ChoreFailed)]
    assert reasons == [
        "what was given up before the start cannot be read: no such disk",
        "what is given up cannot be noted: no room",
    ]
    assert sum(shed.get("samples_dropped", 0) for shed in bench.shed) == 6
    assert bench.tallies.written


def test_a_quiet_daemon_notes_nothing() -> None:
    bench = Bench()
    bench.lives(lambda: asyncio.sleep(300))
    assert bench.tallies.written == []
    assert bench.gaps == []
