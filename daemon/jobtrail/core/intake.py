"""The one way in: an event is held durably, then takes effect on this node."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from jobtrail.core.facts import EventAccepted, Observer, RunClosed
from jobtrail.core.ports import EventSpool, OpenRun, Receipt
from jobtrail.domain.events import Actor, Event, EventKind

LAST_LOOK_SECONDS = 1.0


class Lifecycle(Protocol):
    """Who wants to know that a run began or ended on this node."""

    def opened(self, run: OpenRun) -> None:
        """A run began; called after the event is durable."""
        ...

    def closed(self, run: OpenRun, ended_us: int) -> None:
        """A run ended; called after the event is durable."""
        ...

    async def last_look(self, cluster: str, job_id: str) -> None:
        """Read the job's counters now, while its reporter still holds them open."""
        ...


class Intake:
    """Accepts events into the spool and passes what they mean to the lifecycle."""

    def __init__(self, spool: EventSpool, lifecycle: Lifecycle, tell: Observer) -> None:
        self._spool = spool
        self._lifecycle = lifecycle
        self._tell = tell

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        """Hold `event` and let it take effect once. Raises EventConflict, SpoolFull, SpoolBroken."""
        if event.kind is EventKind.JOB_FINISHED and event.job_id and event.changed_by in (Actor.CLI, Actor.API):
            # A last look that hangs costs the usage of the job's last moments, not the record of its end.
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_LOOK_SECONDS):
                    await self._lifecycle.last_look(event.cluster, event.job_id)
        receipt = await self._spool.append(event, digest)
        if not receipt.duplicate:
            if receipt.closed is not None:
                self._lifecycle.closed(receipt.closed, event.time_us)
            if receipt.opened is not None:
                self._lifecycle.opened(receipt.opened)
            if receipt.inferred is not None and receipt.inferred.closing is not None:
                self._tell(RunClosed(job_id=event.job_id or "", reason=receipt.inferred.closing.reason))
        self._tell(
            EventAccepted(
                kind=event.kind,
                event_id=event.event_id,
                job_id=event.job_id,
                seq=receipt.seq,
                duplicate=receipt.duplicate,
            )
        )
        return receipt
