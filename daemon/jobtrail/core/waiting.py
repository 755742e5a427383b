"""Waits with three ends: the thing waited for, a time limit, or the daemon stopping.

Retry libraries were looked at: they sleep inside, so a stop would wait for them, and core depends on asyncio alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

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

    def next_seconds(self, *, at_least: float | None = None) -> float:
        """How long to wait before trying again. `at_least` is what the other side asked for: up to MOST_ASKED_SECONDS
        it is kept to, and up to half more is added, since all who were sent away were told the same."""
        ceiling, self._next = self._next, min(self._most, self._next * 2)
        own = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads load, guards nothing
        if at_least is None:
            return own
        asked = min(max(at_least, 0.0), MOST_ASKED_SECONDS)
        return max(own, random.uniform(asked, asked * 1.5))  # noqa: S311 - as above
