"""How often slurmctld and slurmdbd may be asked: monitoring must not be what makes them slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from jobtrail.core.ports import Clock

Wait = Callable[[float], Awaitable[None]]


class Pace:
    """Keeps questions of one kind apart: from the end of one to the start of the next at least so many seconds.

    From the end, because a controller that takes its time has least of it to spare.
    """

    def __init__(self, seconds: float, *, clock: Clock, wait: Wait) -> None:
        self._seconds = seconds
        self._clock = clock
        self._wait = wait
        self._last: float | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until it is time, and be the only one to ask meanwhile."""
        async with self._turn:
            if self._last is not None:
                # One wait need not be enough: timers may fire a moment early.
                while (left := self._last + self._seconds - self._clock.monotonic()) > 0:
                    await self._wait(left)
            try:
                yield
            finally:
                self._last = self._clock.monotonic()
