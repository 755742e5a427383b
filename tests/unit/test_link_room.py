"""Those whom a full server sends away come back one after another, as fast as it serves."""

import asyncio
from collections import Counter

import pytest

from jobtrail.adapters.http.link_room import FIRST_PACE, FORGOTTEN_SECONDS, MOST_RETRY_SECONDS, RETRY_SECONDS, Room
from jobtrail.adapters.http.refusals import Refused
from jobtrail.core.waiting import Backoff
from jobtrail.domain.errors import StoreUnavailable
from tests.fakes import FakeClock
from tests.unit import moved_time

AT_A_TIME = 8
REFUSED_SECONDS = 0.02  # until it is known that the database is away


class Crowd:
    """Nodes that ask a room for a turn until they had one."""

    def __init__(self, *, turn_seconds: float) -> None:
        self.clock = FakeClock()
        self.room = Room(AT_A_TIME, now=self.clock.monotonic)
        self.turn_seconds = turn_seconds
        self.away = False  # the database
        self.counts: Counter[str] = Counter()
        self.told: list[int] = []

    async def ask(self, node: str) -> None:
        """Once. Raises Refused, StoreUnavailable."""
        with self.room.place(node):
            async with self.room.turn():
                if self.away:
                    await asyncio.sleep(REFUSED_SECONDS)
                    raise StoreUnavailable("the database is away")
                await asyncio.sleep(self.turn_seconds)

    async def node(self, name: str) -> None:
        """Until it is served, as a node does."""
        backoff = Backoff()
        while True:
            try:
                await self.ask(name)
                return
            except Refused as refused:
                self.counts["refused"] += 1
                self.told.append(int(refused.headers["Retry-After"]))
                error = StoreUnavailable("busy", retry_after_seconds=self.told[-1], turned_away=True)
            except StoreUnavailable as unavailable:
                error = unavailable
            await asyncio.sleep(backoff.after(error))

    async def come(self, nodes: int) -> float:
        """So many come at once; the seconds until all were served."""
        began = self.clock.monotonic()
        await asyncio.gather(*(self.node(f"n{number}") for number in range(nodes)))
        return self.clock.monotonic() - began

    async def fail(self) -> None:
        """As many come as there is room for, while the database is away, and go."""
        self.away = True
        await asyncio.gather(*(self.ask(f"n{number}") for number in range(16 * AT_A_TIME)), return_exceptions=True)
        self.away = False


@pytest.fixture(autouse=True)
def _many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moved_time, "MAX_STEPS", 10_000_000)


@pytest.mark.parametrize("turn_seconds", [0.01, 0.03, 0.1])
def test_a_crowd_is_served_almost_as_fast_as_there_are_turns(turn_seconds: float) -> None:
    """3,000 nodes at once: the turns are seldom empty, and few come in vain more than a few times."""
    crowd = Crowd(turn_seconds=turn_seconds)
    at_best = 3_000 * turn_seconds / AT_A_TIME
    assert moved_time.run(crowd.clock, crowd.come(3_000)) <= 1.5 * at_best + 1.5 * (RETRY_SECONDS + 3_000 / FIRST_PACE)
    assert crowd.counts["refused"] <= 3 * 3_000


def test_nobody_is_asked_to_stay_away_for_longer_than_half_a_minute() -> None:
    crowd = Crowd(turn_seconds=1.5)
    moved_time.run(crowd.clock, crowd.come(3_000))
    assert RETRY_SECONDS <= min(crowd.told) < max(crowd.told) == MOST_RETRY_SECONDS


def test_a_server_that_was_slow_at_first_does_not_stand_idle_afterwards() -> None:
    """As while thousands of handshakes are in progress: what is measured then holds for that moment alone."""

    async def both() -> float:
        asyncio.get_running_loop().call_later(10, setattr, crowd, "turn_seconds", 0.02)
        return await crowd.come(3_000)

    crowd = Crowd(turn_seconds=1.0)
    assert moved_time.run(crowd.clock, both()) <= 10 + 1.5 * MOST_RETRY_SECONDS + 10


@pytest.mark.parametrize("later_seconds", [1, FORGOTTEN_SECONDS + 1])
def test_what_was_measured_long_ago_says_nothing(later_seconds: float) -> None:
    """A server that was slow, as beside a backup, does not make a crowd wait that comes long after that."""

    async def both() -> list[int]:
        await crowd.come(300)
        crowd.turn_seconds = 0.01
        await asyncio.sleep(later_seconds)
        crowd.told.clear()
        await crowd.come(300)
        return crowd.told

    crowd = Crowd(turn_seconds=1.0)
    told = moved_time.run(crowd.clock, both())
    assert (max(told) <= RETRY_SECONDS + 1) is (later_seconds > FORGOTTEN_SECONDS)


def test_a_database_that_is_away_is_not_taken_for_a_fast_one() -> None:
    """Turns that fail at once say nothing of how many are served when it is back."""

    async def both() -> tuple[int, int]:
        await crowd.come(1_000)
        slow = max(crowd.told)
        for _ in range(20):
            await crowd.fail()
        crowd.told.clear()
        await crowd.come(1_000)
        return slow, max(crowd.told)

    crowd = Crowd(turn_seconds=0.4)
    slow, again = moved_time.run(crowd.clock, both())
    assert again >= slow > 2 * RETRY_SECONDS
