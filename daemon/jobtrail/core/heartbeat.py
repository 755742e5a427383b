"""A row of its own in a chain where nothing happens, so that a chain whose end was cut off is told from a quiet one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobtrail.core.collector import send
from jobtrail.core.facts import EventRejected, Observer
from jobtrail.core.ports import Clock, EventIntake, EventSpool
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import SpoolFull
from jobtrail.domain.events import Actor, Event, EventKind

SOURCE = "heartbeat"


class Heartbeat:
    """Adds an event about the chain itself when none came for `every_seconds`."""

    def __init__(
        self,
        spool: EventSpool,
        intake: EventIntake,
        *,
        node: str,
        cluster: str,
        clock: Clock,
        tell: Observer,
        new_event_id: Callable[[], str],
        every_seconds: float,
    ) -> None:
        self._spool = spool
        self._intake = intake
        self._node = node
        self._cluster = cluster
        self._clock = clock
        self._tell = tell
        self._new_event_id = new_event_id
        self._every = every_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Watch the chain until `stop`."""
        while not stop.is_set():
            seen = self._spool.status().head_seq
            await wait_for_any(stop.wait(), self._spool.wait_beyond(seen), timeout_seconds=self._every)
            if not stop.is_set() and self._spool.status().head_seq == seen:
                await self._beat()

    async def _beat(self) -> None:
        event = Event(
            kind=EventKind.CHAIN_HEARTBEAT,
            event_id=self._new_event_id(),
            time_us=self._clock.time_us(),
            cluster=self._cluster,
            job_id=None,
            node=self._node,
            changed_by=Actor.COLLECTOR,
            source=SOURCE,
        )
        try:
            await send(self._intake, event)
        except SpoolFull as error:  # a chain that is full is no idle one
            self._tell(EventRejected(reason="spool_full", detail=str(error)))
