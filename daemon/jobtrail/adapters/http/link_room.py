"""How many nodes are served at a time: as many as the database has connections for; a bounded number waits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from jobtrail.adapters.http.refusals import Refused
from jobtrail.core.link.protocol import MAX_BODY_BYTES
from jobtrail.domain.errors import StoreUnavailable

TURN_SECONDS = 5.0
RETRY_SECONDS = 2
MOST_RETRY_SECONDS = 30
MEASURED_SECONDS = 1.0  # of full rooms, for one measurement of the pace
FIRST_PACE = (
    500.0  # nodes a second. Too many come at first, and are told better; were it too few, turns would stay empty
)
FORGOTTEN_SECONDS = 60.0  # after which a pace says nothing any more: the machine may have been busy otherwise
OVERBOOKED = 1.25  # nodes add up to half to the time they are told, so as not to come all at once
WAITING_FOR_EACH = 16  # requests that are read or wait, for each that uses the database
MOST_BYTES = 64 * 1024 * 1024  # of unpacked bodies, all together
PLACES_OF_A_NODE = 8  # a node asks four things at a time, and may have given up waiting for others
BYTES_OF_A_NODE = MAX_BODY_BYTES


class Pace:
    """How many requests are served in a second, measured while every turn was taken."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._a_second = FIRST_PACE
        self._measured_at = now()
        self._full_since: float | None = None
        self._seconds = 0.0
        self._served = 0

    @property
    def a_second(self) -> float:
        """The pace."""
        old = self._now() - self._measured_at > FORGOTTEN_SECONDS
        return FIRST_PACE if old else self._a_second

    def full(self) -> None:
        """Every turn is taken."""
        if self._full_since is None:
            self._full_since = self._now()

    def served(self, *, full: bool) -> None:
        """A turn ended. `full`: another request takes it at once."""
        if self._full_since is None:
            return
        now = self._now()
        self._served += 1
        self._seconds += now - self._full_since
        self._full_since = now if full else None
        if self._seconds >= MEASURED_SECONDS:
            self._a_second = (self.a_second + self._served / self._seconds) / 2
            self._measured_at, self._seconds, self._served = now, 0.0, 0

    def forget(self) -> None:
        """The database was away: how fast that was found says nothing of how fast it serves."""
        self._full_since, self._seconds, self._served = None, 0.0, 0


class Appointments:
    """When those come back who are sent away: one after another, as fast as nodes are served.

    Were all told to come soon, sending thousands away would take all the time there is and none would be served; were
    all told to come late, the server would stand idle until they do. A pace that was measured while handshakes kept
    the processor busy is too slow a moment later. So nobody is asked to stay away for long: those for whom there would
    be no turn until then are spread over that time, and come again in vain rather than too late.
    """

    def __init__(self, pace: Pace, now: Callable[[], float]) -> None:
        self._pace = pace
        self._now = now
        self._last = now()

    def seconds(self) -> int:
        """How long the next one who is sent away is asked to stay away."""
        now = self._now()
        self._last = max(self._last + 1 / (OVERBOOKED * self._pace.a_second), now + RETRY_SECONDS)
        if self._last - now <= MOST_RETRY_SECONDS:
            return round(self._last - now)
        self._last = now + MOST_RETRY_SECONDS
        return random.randint(RETRY_SECONDS, MOST_RETRY_SECONDS)  # noqa: S311 - spreads load, guards nothing


class Room:
    """The places of one server."""

    def __init__(
        self, at_a_time: int, *, most_bytes: int = MOST_BYTES, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._turns = asyncio.Semaphore(at_a_time)
        self._most_inside = at_a_time * WAITING_FOR_EACH
        self._most_bytes = most_bytes
        self._bytes = 0
        self._pace = Pace(now)
        self._appointments = Appointments(self._pace, now)
        self._inside = self._waiting = 0
        self._places: dict[str, list[Place]] = {}  # by node

    @contextmanager
    def place(self, node: str) -> Iterator[Place]:
        """A place for one request. Raises Refused (503) when all are taken, or the node has its part of them."""
        taken = self._places.get(node, [])
        if len(taken) >= PLACES_OF_A_NODE:
            raise busy(f"{len(taken)} requests of this node are being served already")
        if self._inside >= self._most_inside:
            raise self._busy("as many nodes are being served as can be")
        place = Place(self, node)
        self._places.setdefault(node, taken).append(place)
        self._inside += 1
        try:
            yield place
        finally:
            self._inside -= 1
            self._bytes -= place.held
            taken.remove(place)
            if not taken:
                del self._places[node]

    def hold(self, node: str, size: int) -> None:
        """Account for `size` bytes more of a node. Raises Refused (503) when there is no room for them."""
        if self._bytes + size > self._most_bytes:
            raise self._busy("nodes that are being served fill the memory set aside for them")
        if sum(place.held for place in self._places[node]) + size > BYTES_OF_A_NODE:
            raise busy("requests of this node fill the memory set aside for a node")
        self._bytes += size

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn at the database, in the order of asking. Raises Refused (503) when none comes in time."""
        self._waiting += 1
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise self._busy(f"no connection to the database became free in {TURN_SECONDS:g} s") from error
        finally:
            self._waiting -= 1
        if self._turns.locked():
            self._pace.full()
        try:
            yield
        except StoreUnavailable:
            self._pace.forget()
            raise
        finally:
            self._pace.served(full=self._waiting > 0)
            self._turns.release()

    def _busy(self, why: str) -> Refused:
        return busy(why, self._appointments.seconds())


class Place:
    """One request's place, and the bytes it holds."""

    def __init__(self, room: Room, node: str) -> None:
        self._room = room
        self._node = node
        self.held = 0

    def hold(self, size: int) -> None:
        """Hold `size` bytes more. Raises Refused (503)."""
        self._room.hold(self._node, size)
        self.held += size


def busy(why: str, seconds: int = RETRY_SECONDS) -> Refused:
    """503: another server may have room, and this one will."""
    retry = {"Retry-After": str(seconds)}
    return Refused(503, "unavailable", "busy", why, details={"reason": "busy"}, headers=retry)
