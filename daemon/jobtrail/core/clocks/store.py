"""Compares this node's clock with the store's: times of several nodes lie side by side there."""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.core.clocks.facts import ClockCompared
from jobtrail.core.facts import Observer
from jobtrail.core.ports import Clock, EventSink, StoreReport
from jobtrail.domain.audit import ChainedEvent, ChainHead

WARN_SECONDS = 5.0  # runs of a requeued job are told apart by their times, if clocks differ by no more
STEP_SECONDS = 0.1  # the wall clock was set while the store answered: nothing can be said


class StoreClock:
    """An EventSink that passes on to another, and looks at the time in its answers.

    The store looked at its clock somewhere between question and answer, so the middle is right give or take half of
    what that took.
    """

    def __init__(self, sink: EventSink, *, clock: Clock, tell: Observer) -> None:
        self._sink = sink
        self._clock = clock
        self._tell = tell
        self._last: ClockCompared | None = None

    async def head(self, chain_id: str) -> ChainHead:
        """As of the sink."""
        return await self._sink.head(chain_id)

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        """As of the sink."""
        asked_us, began = self._clock.time_us(), self._clock.monotonic()
        report = await self._sink.store(events, node=node, trail_only=trail_only)
        took, passed = self._clock.monotonic() - began, (self._clock.time_us() - asked_us) / 1e6
        if report.store_time_us is not None and abs(passed - took) < STEP_SECONDS:
            ahead = (asked_us - report.store_time_us) / 1e6 + took / 2
            self._last = ClockCompared(ahead_seconds=ahead, within_seconds=took / 2)
            self._tell(self._last)
        return report

    @property
    def ahead_seconds(self) -> float | None:
        """How far this node's clock was ahead at the last answer; None before the first that told the store's time."""
        return None if self._last is None else self._last.ahead_seconds

    def problem(self) -> str | None:
        """A sentence about a clock that is certainly off by more than `WARN_SECONDS`; None otherwise."""
        last = self._last
        if last is None or abs(last.ahead_seconds) - last.within_seconds <= WARN_SECONDS:
            return None
        side = "ahead of" if last.ahead_seconds > 0 else "behind"
        return f"this node's clock is {abs(last.ahead_seconds):.1f} s {side} the store's: synchronise both"
