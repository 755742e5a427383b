"""Puts on record in the trail what was given up for want of room: what it was, how much, and between which moments.

The order in which room is made, each step only when the one before was not enough: of the samples that wait for a store
that is away, three of four are not kept; of those that wait already, every second is given up; the oldest are given up;
events that were forwarded and are kept for the case that the store forgets them go before their time; new events are
refused, and hooks keep them as files. An event that was acknowledged and not forwarded is never given up.

Records are events, which take room that is short, so there are few of them, and while the spool is full there are none.
What is not on record yet is noted every second where no more room is needed than there is. So a daemon that is killed
loses the counts of a second, and the next one says that there may be such.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from jobtrail.core.facts import (
    ChoreFailed,
    EventAccepted,
    EventRejected,
    EventsForwarded,
    Fact,
    GapRecorded,
    Observer,
    SamplesDropped,
    SamplesThinned,
)
from jobtrail.core.ports import Clock, EventSpool
from jobtrail.core.trail.gap_ports import Tally, TallyLog
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import EventConflict, SpoolFull
from jobtrail.domain.events import EventKind, Gap

SOURCE = "shedding"
LOOK_SECONDS = 1.0
EVERY_SECONDS = 10.0
# While something is given up all the time, as samples are in a long outage, each record waits twice as long as the one
# before, up to this: records are never given up themselves.
LONGEST_SECONDS = 600.0
STILL_SECONDS = 30.0  # for so long nothing more was given up: what is left is told now, and that it is over
# While nothing is told to be given up: the spool also lets events go when none comes in, after some were forwarded.
QUIET_SECONDS = 30.0


class GapRecords:
    """Counts what other parts tell they gave up, and sends an event about it now and then."""

    def __init__(
        self,
        spool: EventSpool,
        events: OwnEvents,
        tally: TallyLog,
        *,
        clock: Clock,
        tell: Observer,
        ask: Iterable[Callable[[], None]] = (),
    ) -> None:
        """`ask`: parts that tell the first they gave up at once, and more when they are asked to, before each look."""
        self._spool = spool
        self._events = events
        self._tally = tally
        self._clock = clock
        self._tell = tell
        self._ask = tuple(ask)
        self._shed: Counter[str] = Counter()
        self._purged_early = 0
        self._since_us = clock.time_us()
        self._uncounted_since_us: int | None = None
        self._event_id = events.new_id()
        self._left: Tally | None = None  # by the daemon before this one, until its id was used
        self._open = False  # the last record said that it goes on
        self._wait_seconds = 0.0
        self._recorded_at = self._changed_at = self._again_at = clock.monotonic()
        self._seen: dict[str, int] = {}
        self._noted: tuple[dict[str, int], bool, int | None] = ({}, False, None)  # what the tally says
        self._note_fails = False
        self._something = asyncio.Event()  # was given up, or may have been

    def observe(self, fact: Fact) -> None:
        """Count a fact that tells of something given up."""
        match fact:
            case SamplesThinned(rows=rows):
                self._give_up("samples_thinned", rows)
            case SamplesDropped(rows=rows):
                self._give_up("samples_dropped", rows)
            case EventRejected(reason="spool_full"):
                self._give_up("events_refused", 1)
            case EventAccepted() | EventsForwarded() if self._spool.status().purged_early != self._purged_early:
                self._something.set()

    def _give_up(self, what: str, count: int) -> None:
        self._shed[what] += count
        self._something.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop`, and once more then. First what the daemon before this one could not."""
        await self.resume()
        while not stop.is_set():
            if self._is_quiet():
                await wait_for_any(stop.wait(), self._something.wait(), timeout_seconds=QUIET_SECONDS)
            await wait_for_any(stop.wait(), timeout_seconds=LOOK_SECONDS)
            self._something.clear()
            for ask in self._ask:
                ask()
            self._count()
            if stop.is_set() or self._is_due():
                # Before it is told: a daemon that is killed right after it leaves that it goes on, and under which id.
                await self._note(goes_on=True)
                await self.record(goes_on=not stop.is_set() and not self._is_still())
            await self._note(goes_on=not stop.is_set())

    async def resume(self) -> None:
        """Take up what the daemon before this one noted and did not put on record, and put it there."""
        try:
            left = await self._tally.read()
        except OSError as error:
            self._tell(ChoreFailed(reason=f"what was given up before the start cannot be read: {error}"))
            return
        if left is None:
            return
        self._noted = (left.shed, left.goes_on, left.uncounted_since_us)
        uncounted = left.noted_us if left.goes_on else None
        self._left = left
        self._event_id, self._since_us = left.event_id, left.since_us
        self._shed += Counter(left.shed)  # others may have told something since the start
        self._uncounted_since_us = uncounted if left.uncounted_since_us is None else left.uncounted_since_us
        await self.record()
        await self._note(goes_on=True)

    def _count(self) -> None:
        """Count what the spool gave up, and see whether anything changed."""
        purged = self._spool.status().purged_early
        self._shed["retained_events"] += purged - self._purged_early
        self._purged_early = purged
        told = self._told()
        if told != self._seen:
            self._seen, self._changed_at = told, self._clock.monotonic()

    def _told(self) -> dict[str, int]:
        return {what: count for what, count in sorted(self._shed.items()) if count}

    def _is_quiet(self) -> bool:
        """Whether all is on record, and noted to be: then nothing is to do until something more is given up."""
        return not self._open and self._noted == ({}, False, None) == (self._told(), False, self._uncounted_since_us)

    def _is_still(self) -> bool:
        return self._clock.monotonic() - self._changed_at >= STILL_SECONDS

    def _is_due(self) -> bool:
        now = self._clock.monotonic()
        waited = now - self._recorded_at
        if now < self._again_at:
            return False
        if self._told() or self._uncounted_since_us is not None:
            return waited >= self._wait_seconds or self._is_still()
        if not self._open and waited > 2 * self._wait_seconds:
            self._wait_seconds = 0.0  # it was quiet for long: the next is told at once
        return self._open and self._is_still()

    async def record(self, *, goes_on: bool = False) -> None:
        """Send what was given up since the last time. Where the spool is full it waits until it is not."""
        self._count()
        told, uncounted = self._told(), self._uncounted_since_us
        now_us = self._clock.time_us()
        if not told and not self._open and uncounted is None:
            self._since_us = now_us
            return
        gap = Gap(since_us=self._since_us, shed=told, goes_on=goes_on, uncounted_since_us=uncounted)
        try:
            await self._events.record(EventKind.GAP, SOURCE, time_us=now_us, gap=gap, event_id=self._event_id)
        except SpoolFull:
            self._again_at = self._clock.monotonic() + EVERY_SECONDS
            return
        except EventConflict:
            # The daemon before this one put it on record, and ended before it could note that.
            assert self._left is not None, "ids of its own are new"
            self._shed -= Counter(self._left.shed)
            self._event_id, self._since_us = self._events.new_id(), max(self._since_us, self._left.noted_us)
            self._left = None
            await self.record(goes_on=goes_on)
            return
        self._left = None
        self._shed -= Counter(told)
        self._event_id, self._since_us, self._uncounted_since_us = self._events.new_id(), now_us, None
        self._open, self._seen = goes_on, self._told()
        self._recorded_at = self._clock.monotonic()
        self._wait_seconds = min(max(2 * self._wait_seconds, EVERY_SECONDS), LONGEST_SECONDS)
        self._tell(GapRecorded(shed=told))

    async def _note(self, *, goes_on: bool) -> None:
        """Keep what is not on record, where it is other than what is kept. Where it cannot be kept that is told."""
        told = self._told()
        goes_on = goes_on and (bool(told) or self._open)
        state = (told, goes_on, self._uncounted_since_us)
        if state == self._noted:
            return
        tally = Tally(
            event_id=self._event_id,
            since_us=self._since_us,
            noted_us=self._clock.time_us(),
            shed=told,
            goes_on=goes_on,
            uncounted_since_us=self._uncounted_since_us,
        )
        try:
            await self._tally.write(tally)
        except OSError as error:
            if not self._note_fails:
                self._tell(ChoreFailed(reason=f"what is given up cannot be noted: {error}"))
            self._note_fails = True
            return
        self._noted, self._note_fails = state, False
