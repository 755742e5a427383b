"""A wall clock that is set is told of and put on record; one that only runs is not."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from jobtrail.core.clocks.facts import ClockStepped
from jobtrail.core.clocks.watch import CLOSE_SECONDS, EVERY_SECONDS, MOST_WAITING, ClockWatch
from jobtrail.core.facts import EventAccepted, SamplesDropped
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.domain.events import EventKind, decode
from tests.fake_spool import MemorySpool
from tests.fakes import Facts, FakeClock
from tests.unit import moved_time
from tests.unit.test_witness import Intake

ACCEPTED = EventAccepted(kind="job_started", event_id="e", job_id="slurm-1", seq=1)


class HeldUpClock(FakeClock):
    """One between whose reading and the next the reader waits so long, so many times."""

    held_up = 0

    def time_us(self) -> int:
        if self.held_up:
            self.held_up -= 1
            self.advance(CLOSE_SECONDS * 100)
        return super().time_us()


class Bench:
    def __init__(self) -> None:
        self.clock, self.facts = HeldUpClock(), Facts()
        self.spool = MemorySpool(clock=self.clock)
        self.watch = self.another()

    def another(self) -> ClockWatch:
        """One that begins now."""
        events = OwnEvents(
            Intake(self.spool), node="n1", cluster="c1", clock=self.clock, new_event_id=lambda: str(uuid.uuid4())
        )
        return ClockWatch(events, clock=self.clock, tell=self.facts)

    @property
    def told(self) -> list[float]:
        return [fact.seconds for fact in self.facts.of(ClockStepped)]

    @property
    def recorded(self) -> list[tuple[int, int | None]]:
        events = [decode(row.payload) for row in self.spool.rows]
        return [(event.time_us, event.clock_step_us) for event in events if event.kind is EventKind.CLOCK_STEPPED]

    def pass_turns(self, turns: int) -> None:
        async def main() -> None:
            stop = asyncio.Event()
            running = asyncio.create_task(self.watch.run(stop))
            await asyncio.sleep(EVERY_SECONDS * turns + 1)
            stop.set()
            await running

        moved_time.run(self.clock, main())


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, -1.0, 1.0, 0.5])
def test_a_step_is_told_and_recorded_with_its_size_and_the_new_time(seconds: float) -> None:
    bench = Bench()
    bench.clock.advance(500)
    bench.clock.set_wall_by(seconds)
    began = bench.clock.time_us()
    bench.pass_turns(3)
    assert bench.told == [pytest.approx(seconds, abs=1e-5)]
    ((time_us, step_us),) = bench.recorded
    assert step_us == pytest.approx(seconds * 1e6, abs=10)
    assert began <= time_us <= began + (EVERY_SECONDS + 1) * 1e6


def test_time_that_passes_and_what_is_less_than_half_a_second_is_no_step() -> None:
    bench = Bench()
    bench.clock.set_wall_by(0.4)
    bench.pass_turns(50)
    assert (bench.told, bench.recorded) == ([], [])


def test_what_is_set_and_set_back_between_two_looks_shows_by_the_events_between() -> None:
    bench = Bench()
    for seconds in (3600.0, -3600.0):
        bench.clock.set_wall_by(seconds)
        bench.watch.observe(SamplesDropped(rows=1))
        assert len(bench.told) == (0 if seconds > 0 else 1)
        bench.watch.observe(ACCEPTED)
    assert bench.told == [3600.0, -3600.0]
    bench.pass_turns(1)
    assert [step for _, step in bench.recorded] == [3_600_000_000, -3_600_000_000]


def test_a_reader_that_was_held_up_takes_no_step_for_it() -> None:
    """It looks again at once; where that does not help, later; and begins with the first good look."""
    bench = Bench()
    bench.clock.held_up = 2
    bench.watch.look()
    bench.clock.held_up = 99
    bench.watch.look()
    begun_badly = bench.another()
    bench.clock.held_up = 0
    begun_badly.look()
    bench.watch.look()
    assert bench.told == []
    bench.clock.set_wall_by(7.0)
    begun_badly.look()
    assert bench.told == [7.0]


def test_while_the_spool_is_full_steps_wait_and_those_of_a_mad_clock_take_no_room_without_end() -> None:
    bench = Bench()
    bench.spool.full = True
    for _ in range(MOST_WAITING + 5):
        bench.clock.set_wall_by(2.0)
        bench.watch.look()
    bench.pass_turns(1)
    assert bench.recorded == []
    bench.spool.full = False
    bench.pass_turns(1)
    assert (len(bench.told), len(bench.recorded)) == (MOST_WAITING + 5, MOST_WAITING)
