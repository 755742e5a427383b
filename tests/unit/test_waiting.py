"""Waits end with the first of their ends, and leave nothing behind."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.core.waiting import MOST_ASKED_SECONDS, Backoff, wait_for_any
from jobtrail.domain.errors import StoreUnavailable
from tests.fakes import FakeClock
from tests.unit import moved_time


def test_the_first_of_several_waits_ends_it_and_the_rest_are_cancelled() -> None:
    async def main() -> None:
        never, soon = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().call_later(5, soon.set)
        await wait_for_any(never.wait(), soon.wait(), timeout_seconds=60)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock = FakeClock(monotonic=100)
    moved_time.run(clock, main())
    assert clock.monotonic() == pytest.approx(105)


def test_the_time_limit_ends_it() -> None:
    clock = FakeClock(monotonic=100)
    moved_time.run(clock, wait_for_any(asyncio.Event().wait(), timeout_seconds=7))
    assert clock.monotonic() == pytest.approx(107)


def test_what_a_wait_raises_is_raised() -> None:
    async def broken() -> None:
        raise ValueError("the disk is gone")

    with pytest.raises(ValueError, match="the disk is gone"):
        moved_time.run(FakeClock(), wait_for_any(asyncio.Event().wait(), broken()))


def test_being_cancelled_cancels_the_waits() -> None:
    async def main() -> None:
        task = asyncio.create_task(wait_for_any(asyncio.Event().wait(), asyncio.Event().wait()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    moved_time.run(FakeClock(), main())


@given(st.floats(0.01, 5), st.floats(5, 100))
def test_delays_double_up_to_the_most_and_keep_to_their_upper_half(first: float, most: float) -> None:
    backoff = Backoff(first, most)
    for _ in range(2):
        ceiling = first
        for _ in range(12):
            delay = backoff.next_seconds()
            assert ceiling / 2 <= delay <= ceiling <= most
            ceiling = min(most, ceiling * 2)
        backoff.reset()


@given(st.floats(-10, 1e12))
def test_what_the_other_side_asks_for_is_kept_to_within_reason(asked: float) -> None:
    bounded = min(max(asked, 0.0), MOST_ASKED_SECONDS)
    delay = Backoff(1.0, 8.0).after(StoreUnavailable("away", retry_after_seconds=asked))
    assert bounded <= delay <= max(1.0, bounded * 1.5)


def test_a_store_that_names_no_time_is_left_alone_twice_as_long_each_time() -> None:
    backoff = Backoff(1.0, 8.0)
    delays = [backoff.after(StoreUnavailable("full", turned_away=True)) for _ in range(4)]
    assert [ceiling / 2 <= delay <= ceiling for delay, ceiling in zip(delays, (1, 2, 4, 8), strict=True)] == [True] * 4


def test_a_store_that_names_a_time_for_want_of_room_is_taken_at_its_word() -> None:
    """However often it does, and never at once."""
    backoff = Backoff(1.0, 8.0)
    for asked in (3.0, 3.0, 3.0, 3.0, 3.0, 0.0):
        delay = backoff.after(StoreUnavailable("full", retry_after_seconds=asked, turned_away=True))
        assert max(asked, 1.0) <= delay <= max(asked * 1.5, 1.0)


def test_a_thousand_nodes_do_not_come_back_at_once() -> None:
    """Delays of one ceiling differ: a fixed delay would keep the nodes in step for ever."""
    assert len({Backoff().next_seconds() for _ in range(20)}) > 1


def test_a_test_that_would_hang_fails_instead() -> None:
    """The moved-time loop tells a wait without end, and a loop in which no time passes."""

    async def busy() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(moved_time.StuckError, match="no timer"):
        moved_time.run(FakeClock(), asyncio.Event().wait())
    with pytest.raises(moved_time.StuckError, match="hot loop"):
        moved_time.run(FakeClock(), busy())
