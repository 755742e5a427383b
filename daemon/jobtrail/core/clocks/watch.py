"""Tells of steps of the wall clock, and puts them on record in the trail: times on either side do not compare.

Wall and steady clock are compared now and then, and with each event that is held. Slewing changes neither's distance
from the other, as CLOCK_MONOTONIC is slewed as well (clock_gettime(2)); but it stands still while the machine is
suspended, and so a suspended machine's clock shows as having been set ahead.
"""

from __future__ import annotations

import asyncio
from collections import deque

from jobtrail.core.clocks.facts import ClockStepped
from jobtrail.core.facts import EventAccepted, Fact, Observer
from jobtrail.core.ports import Clock
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import SpoolFull
from jobtrail.domain.events import EventKind

SOURCE = "clock_watch"
EVERY_SECONDS = 10.0
STEP_SECONDS = 0.5  # so that a second back or a leap second is one
CLOSE_SECONDS = 0.05  # both clocks must be read within this, or a thread that had to wait would look like a step
LOOKS = 3
MOST_WAITING = 60  # steps that are not on record yet; a clock that is set without end costs no more room


class ClockWatch:
    """Compares both clocks. Each step is told at once, and recorded as an event within `EVERY_SECONDS`."""

    def __init__(self, events: OwnEvents, *, clock: Clock, tell: Observer) -> None:
        self._events = events
        self._clock = clock
        self._tell = tell
        self._waiting: deque[tuple[int, int]] = deque(maxlen=MOST_WAITING)
        self._apart_us = self._look()

    def observe(self, fact: Fact) -> None:
        """Look at both clocks when an event was held: what was set and set back within a job shows all the same."""
        if isinstance(fact, EventAccepted):
            self.look()

    def look(self) -> None:
        """Compare both clocks, and tell a step."""
        apart_us, before_us = self._look(), self._apart_us
        if apart_us is None:
            return
        self._apart_us = apart_us
        if before_us is not None and abs(apart_us - before_us) >= STEP_SECONDS * 1e6:
            self._waiting.append((self._clock.time_us(), apart_us - before_us))
            self._tell(ClockStepped(seconds=(apart_us - before_us) / 1e6))

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop`, and put on record what is left then."""
        while not stop.is_set():
            await wait_for_any(stop.wait(), timeout_seconds=EVERY_SECONDS)
            self.look()
            await self._record()

    async def _record(self) -> None:
        """Put the steps on record. Where the spool is full they wait until it is not."""
        while self._waiting:
            time_us, step_us = self._waiting[0]
            try:
                await self._events.record(EventKind.CLOCK_STEPPED, SOURCE, time_us=time_us, clock_step_us=step_us)
            except SpoolFull:
                return
            self._waiting.popleft()

    def _look(self) -> int | None:
        """How far the wall clock is ahead of the steady one, in µs; None where both could not be read together."""
        for _ in range(LOOKS):
            began = self._clock.monotonic()
            wall_us = self._clock.time_us()
            if self._clock.monotonic() - began <= CLOSE_SECONDS:
                return wall_us - round(began * 1e6)
        return None
