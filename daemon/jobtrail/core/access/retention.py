"""The record of who was turned away has an end: of several servers the one that leads removes what is old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jobtrail.core.access.ports import SecurityArchive
from jobtrail.core.facts import ChoreFailed, Observer, SecurityPruned
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import StoreRefused, StoreUnavailable

EVERY_SECONDS = 3600.0
TURNS = 1000  # in an hour; what is left then waits for the next


class SecurityRetention:
    """Removes security events when they are older than they are kept, each hour, some at a time."""

    def __init__(
        self, archive: SecurityArchive, *, leads: Callable[[], Awaitable[bool]], tell: Observer, keep_days: int
    ) -> None:
        self._archive = archive
        self._leads = leads
        self._tell = tell
        self._keep_days = keep_days

    async def run(self, stop: asyncio.Event) -> None:
        """Remove until `stop`; a store that is away costs the turn alone."""
        while not stop.is_set():
            try:
                await self.turn(stop)
            except (StoreUnavailable, StoreRefused) as error:
                self._tell(ChoreFailed(reason=f"old security events are not removed: {error}"))
            await wait_for_any(stop.wait(), timeout_seconds=EVERY_SECONDS)

    async def turn(self, stop: asyncio.Event) -> None:
        """Remove what is old, if this daemon leads. Raises StoreUnavailable, StoreRefused."""
        rows = 0
        for _ in range(TURNS):
            if stop.is_set() or not await self._leads():
                break
            removed = await self._archive.prune_security(keep_days=self._keep_days)
            rows += removed
            if not removed:
                break
        if rows:
            self._tell(SecurityPruned(rows=rows))
