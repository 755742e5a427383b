"""Waits with three ends: the thing waited for, a time limit, or the daemon stopping.

Retry libraries were looked at: they sleep inside, so a stop would wait for them, and core depends on asyncio alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

from jobtrail.domain.errors import StoreUnavailable

MOST_ASKED_SECONDS = 300.0


async def wait_for_any(*waits: Awaitable[object], timeout_seconds: float | None = None) -> None:
    """Return when the first of `waits` is done or the time is up; the others are cancelled.

    An exception of a finished wait is raised.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Backoff:
    """Delays that double from `first_seconds` to `most_seconds`, each drawn from its upper half, so that a thousand
    nodes do not come back in the same second."""

    def __init__(self, first_seconds: float = 0.5, most_seconds: float = 30.0) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self._next = first_seconds

    def reset(self) -> None:
        """It worked: begin with the short delay again."""
        self._next = self._first

    def next_seconds(self) -> float:
        """How long to wait before trying again."""
        ceiling, self._next = self._next, min(self._most, self._next * 2)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads load, guards nothing

    def after(self, error: StoreUnavailable) -> float:
        """How long to wait after `error`. What the store asks for is kept to, up to MOST_ASKED_SECONDS, and up to half
        more is added, since others were told the same. One that sends us away for want of room knows when it will have
        room: doubling delays of our own would only leave it idle."""
        asked = error.retry_after_seconds
        if asked is None:
            return self.next_seconds()
        asked = min(max(asked, 0.0), MOST_ASKED_SECONDS)
        own = self._first if error.turned_away else self.next_seconds()
        return max(own, random.uniform(asked, asked * 1.5))  # noqa: S311 - as above
