"""Events of a writer about itself and its own chain: of no job, and nobody else's word."""

from __future__ import annotations

from collections.abc import Callable

from jobtrail.core.ports import Clock, EventIntake
from jobtrail.core.runs.collector import send
from jobtrail.domain.events import Actor, Event, EventKind, Gap


class OwnEvents:
    """Puts such events in by the one way in."""

    def __init__(
        self, intake: EventIntake, *, node: str, cluster: str, clock: Clock, new_event_id: Callable[[], str]
    ) -> None:
        self._intake = intake
        self._node = node
        self._cluster = cluster
        self._clock = clock
        self._new_event_id = new_event_id

    def new_id(self) -> str:
        """An id for an event that is to be recorded once, also by a daemon that tries again."""
        return self._new_event_id()

    async def record(
        self,
        kind: EventKind,
        source: str,
        *,
        time_us: int | None = None,
        note: str | None = None,
        gap: Gap | None = None,
        clock_step_us: int | None = None,
        event_id: str | None = None,
    ) -> None:
        """Hold an event of `kind`, of now unless `time_us` says when, under a new id unless `event_id` is one.

        Raises SpoolFull, SpoolBroken; EventConflict where `event_id` is held already.
        """
        event = Event(
            kind=kind,
            event_id=event_id or self._new_event_id(),
            time_us=self._clock.time_us() if time_us is None else time_us,
            cluster=self._cluster,
            job_id=None,
            node=self._node,
            changed_by=Actor.COLLECTOR,
            source=source,
            note=note,
            gap=gap,
            clock_step_us=clock_step_us,
        )
        await send(self._intake, event)
