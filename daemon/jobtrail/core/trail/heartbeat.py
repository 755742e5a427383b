"""A row of its own in a chain where nothing happens, so that a chain whose end was cut off is told from a quiet one."""

from __future__ import annotations

import asyncio

from jobtrail.core.facts import EventRejected, Observer
from jobtrail.core.ports import EventSpool
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import SpoolFull
from jobtrail.domain.events import EventKind

SOURCE = "heartbeat"


class Heartbeat:
    """Adds an event about the chain itself when none came for `every_seconds`."""

    def __init__(self, spool: EventSpool, events: OwnEvents, *, tell: Observer, every_seconds: float) -> None:
        self._spool = spool
        self._events = events
        self._tell = tell
        self._every = every_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Watch the chain until `stop`."""
        while not stop.is_set():
            seen = self._spool.status().head_seq
            await wait_for_any(stop.wait(), self._spool.wait_beyond(seen), timeout_seconds=self._every)
            if not stop.is_set() and self._spool.status().head_seq == seen:
                await self._beat()

    async def _beat(self) -> None:
        try:
            await self._events.record(EventKind.CHAIN_HEARTBEAT, SOURCE)
        except SpoolFull as error:  # a chain that is full is no idle one
            self._tell(EventRejected(reason="spool_full", detail=str(error)))
