"""How many nodes are served at a time: as many as the database has connections for; a bounded number waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from jobtrail.adapters.http.refusals import Refused
from jobtrail.core.node_link import MAX_BODY_BYTES

TURN_SECONDS = 5.0
RETRY_SECONDS = 2  # nodes double their own delay on top of it
# Where thousands of nodes come every two seconds, sending them away takes all the time there is and none is served. So
# those who are sent away are asked to stay away for as long as makes as many come as can be served.
MOST_RETRY_SECONDS = 120
WINDOW_SECONDS = 5.0
WAITING_FOR_EACH = 16  # requests that are read or wait, for each that uses the database
MOST_BYTES = 64 * 1024 * 1024  # of unpacked bodies, all together
PLACES_OF_A_NODE = 8  # a node asks four things at a time, and may have given up waiting for others
BYTES_OF_A_NODE = MAX_BODY_BYTES


class Crowd:
    """How long those stay away who are sent away: by how many came, in the last window, for each that was served."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until = now() + WINDOW_SECONDS
        self._served = self._refused = 0
        self._seconds = float(RETRY_SECONDS)

    def served(self) -> None:
        """One was served."""
        self._turn_over()
        self._served += 1

    def refused(self) -> int:
        """One is sent away: for so many seconds."""
        self._turn_over()
        self._refused += 1
        return round(self._seconds)

    def _turn_over(self) -> None:
        now = self._now()
        if now < self._until:
            return
        came = self._served + self._refused
        factor = came / max(1, self._served) if self._refused else 0.5
        self._seconds = min(MOST_RETRY_SECONDS, max(RETRY_SECONDS, self._seconds * factor))
        self._until, self._served, self._refused = now + WINDOW_SECONDS, 0, 0


class Room:
    """The places of one server."""

    def __init__(self, at_a_time: int, *, most_bytes: int = MOST_BYTES) -> None:
        self._turns = asyncio.Semaphore(at_a_time)
        self._most_inside = at_a_time * WAITING_FOR_EACH
        self._most_bytes = most_bytes
        self._bytes = 0
        self._crowd = Crowd()
        self._inside = 0
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
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise self._busy(f"no connection to the database became free in {TURN_SECONDS:g} s") from error
        self._crowd.served()
        try:
            yield
        finally:
            self._turns.release()

    def _busy(self, why: str) -> Refused:
        return busy(why, self._crowd.refused())


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
