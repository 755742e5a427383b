"""Recomputes the trail regularly: what is new often, everything rarely.

When everything was recomputed last is on record in the store. So it is not put off by a restart, nor done again because
another daemon leads now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jobtrail.core.facts import Observer
from jobtrail.core.ports import Clock
from jobtrail.core.trail.facts import TrailBroken, TrailVerified, VerifyFailed
from jobtrail.core.trail.ports import Verifier
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import StoreRefused, StoreUnavailable

MOST_TOLD = 1000
FULL_AGAIN_SECONDS = 3600.0  # where one broke off: it is much work, and what is new is to be verified meanwhile


class Verifying:
    """The daemon that leads verifies; what it finds is told once each, and counted at every turn."""

    def __init__(
        self,
        verifier: Verifier,
        *,
        leads: Callable[[], Awaitable[bool]],
        clock: Clock,
        tell: Observer,
        every_seconds: float,
        full_seconds: float,
    ) -> None:
        self._verifier = verifier
        self._leads = leads
        self._clock = clock
        self._tell = tell
        self._every = every_seconds
        self._full = full_seconds
        self._full_not_before = 0.0
        self._told: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Verify until `stop`; a store that is away costs the turn alone."""
        while not stop.is_set():
            try:
                await self.turn()
            except (StoreUnavailable, StoreRefused) as error:
                self._tell(VerifyFailed(reason=str(error)))
            await wait_for_any(stop.wait(), timeout_seconds=self._every)

    async def _is_full_due(self) -> bool:
        since = await self._verifier.since_full()
        return since is None or not 0 <= since < self._full  # below 0: the store's clock was set back

    async def turn(self) -> None:
        """Verify, if this daemon leads. Raises StoreUnavailable, StoreRefused."""
        if not await self._leads():
            return
        began = self._clock.monotonic()
        full = began >= self._full_not_before and await self._is_full_due()
        if full:
            self._full_not_before = began + min(self._full, FULL_AGAIN_SECONDS)
        checked = await self._verifier.verify(full=full)
        for finding in checked.findings:
            text = str(finding)
            if text not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(text)
                where = f"chain {finding.chain_id} sequence {finding.seq}" if finding.chain_id else "checkpoints"
                self._tell(TrailBroken(code=finding.code, where=where, detail=finding.detail))
        self._tell(
            TrailVerified(
                kind=checked.kind,
                rows=checked.rows,
                checkpoint=checked.checkpoint,
                findings=len(checked.findings),
                seconds=self._clock.monotonic() - began,
            )
        )
