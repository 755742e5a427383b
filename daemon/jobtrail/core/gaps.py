"""Puts on record in the trail what was given up for want of room: what it was, how much, and between which moments.

The order in which room is made, each step only when the one before was not enough: of the samples that wait for a store
that is away, three of four are not kept; of those that wait already, every second is given up; the oldest are given up;
events that were forwarded and are kept for the case that the store forgets them go before their time; new events are
refused, and hooks keep them as files. An event that was acknowledged and not forwarded is never given up.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from jobtrail.core.facts import EventRejected, Fact, GapRecorded, Observer, SamplesDropped, SamplesThinned
from jobtrail.core.own_events import OwnEvents
from jobtrail.core.ports import Clock, EventSpool
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import SpoolFull
from jobtrail.domain.events import EventKind, Gap

SOURCE = "shedding"
EVERY_SECONDS = 10.0
# While something is given up all the time, as samples are in a long outage, each record waits twice as long as the one
# before, up to this: records are events, which take room in the spool and are never given up themselves.
LONGEST_SECONDS = 600.0
STILL_SECONDS = 30.0  # for so long nothing more was given up: what is left is told now


class GapRecords:
    """Counts what other parts tell they gave up, and sends an event about it now and then."""

    def __init__(self, spool: EventSpool, events: OwnEvents, *, clock: Clock, tell: Observer) -> None:
        self._spool = spool
        self._events = events
        self._clock = clock
        self._tell = tell
        self._shed: Counter[str] = Counter()
        self._purged_early = 0
        self._since_us = clock.time_us()
        self._wait_seconds = 0.0
        self._recorded_at = self._changed_at = clock.monotonic()
        self._seen: dict[str, int] = {}

    def observe(self, fact: Fact) -> None:
        """Count a fact that tells of something given up."""
        match fact:
            case SamplesThinned(rows=rows):
                self._shed["samples_thinned"] += rows
            case SamplesDropped(rows=rows):
                self._shed["samples_dropped"] += rows
            case EventRejected(reason="spool_full"):
                self._shed["events_refused"] += 1

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop`, and once more then."""
        while not stop.is_set():
            await wait_for_any(stop.wait(), timeout_seconds=EVERY_SECONDS)
            if stop.is_set() or self._is_due():
                await self.record()

    def _is_due(self) -> bool:
        now, told = self._clock.monotonic(), self._told(self._spool.status().purged_early)
        if told != self._seen:
            self._seen, self._changed_at = told, now
        if not told:
            if now - self._recorded_at > 2 * self._wait_seconds:
                self._wait_seconds = 0.0
            return True
        return now - self._recorded_at >= self._wait_seconds or now - self._changed_at >= STILL_SECONDS

    def _told(self, purged_early: int) -> dict[str, int]:
        shed = Counter(self._shed)
        shed["retained_events"] = purged_early - self._purged_early
        return {what: count for what, count in sorted(shed.items()) if count}

    async def record(self) -> None:
        """Send what was given up since the last time. Where the spool is full it waits until it is not."""
        purged = self._spool.status().purged_early
        told = self._told(purged)
        now_us = self._clock.time_us()
        if not told:
            self._since_us = now_us
            return
        gap = Gap(since_us=self._since_us, shed=told)
        try:
            await self._events.record(EventKind.GAP, SOURCE, time_us=now_us, gap=gap)
        except SpoolFull:
            return
        self._purged_early, self._since_us = purged, now_us
        self._recorded_at, self._seen = self._clock.monotonic(), {}
        self._wait_seconds = min(max(2 * self._wait_seconds, EVERY_SECONDS), LONGEST_SECONDS)
        self._shed -= Counter({what: count for what, count in told.items() if what != "retained_events"})
        self._tell(GapRecorded(shed=told))
