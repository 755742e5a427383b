"""Holds readings until the store takes them; sheds some, counted, when the store is away too long.

First of each series fewer are kept, then every second of those that wait is given up, and at last the oldest: so what
is left of a long absence reaches far back, at longer intervals.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from jobtrail.core.facts import ForwardFailed, Observer, SamplesDropped, SamplesThinned, SamplesWritten
from jobtrail.core.ports import Clock
from jobtrail.core.waiting import Backoff, wait_for_any
from jobtrail.domain.errors import StoreRefused, StoreUnavailable

BATCH_ROWS = 2_000
FLUSH_SECONDS = 2.0
KEPT_OF = 4  # of so many readings of a series one is kept, once the queue is half full


Row = TypeVar("Row")
SinkRow_contra = TypeVar("SinkRow_contra", contravariant=True)


class RowSink(Protocol[SinkRow_contra]):
    """Where rows of one kind are kept for a while, as SampleSink."""

    async def write(self, rows: Sequence[SinkRow_contra]) -> int:
        """Store `rows`; how many were taken, the others being told as dropped. Raises StoreUnavailable."""
        ...


class SampleBuffer(Generic[Row]):
    """A bounded queue of readings in front of the store."""

    def __init__(
        self,
        sink: RowSink[Row] | None,
        *,
        clock: Clock,
        tell: Observer,
        backoff: Backoff,
        max_rows: int = 20_000,
        series_of: Callable[[Row], Hashable] | None = None,
    ) -> None:
        """`series_of` names what a row is a reading of; without it rows are not thinned, only the oldest dropped."""
        self._series_of = series_of
        self._passed: dict[Hashable, int] = {}  # readings of each series since the queue was half full
        self._in_flight = 0  # of the oldest rows, those that are being written
        self._thinned = 0  # rows thinned out and not yet told of
        self._sink = sink
        self._clock = clock
        self._tell = tell
        self._backoff = backoff
        self._rows: deque[Row] = deque()
        self._max_rows = max_rows
        self._more = asyncio.Event()
        self._shed = 0  # rows shed and not yet told of
        self._asked = False  # somebody knows that there may be such, and asks

    def add(self, row: Row) -> None:
        """Queue one reading. Without a store readings live on the board only.

        The first that is shed to make room is told at once, more at the next flush or when `tell_shed` asks for it.
        """
        if self._sink is not None:
            self._add(row)
            if not self._asked and (self._thinned or self._shed):
                self.tell_shed()

    def _add(self, row: Row) -> None:
        if not self._keeps(row):
            return
        self._rows.append(row)
        if len(self._rows) > self._max_rows:
            self._thin_out()
        if len(self._rows) > self._max_rows:
            self._rows.popleft()
            self._shed += 1
        self._more.set()

    def _keeps(self, row: Row) -> bool:
        """Whether to queue it: once the queue is half full, one of some of each series."""
        if self._series_of is None or 2 * len(self._rows) < self._max_rows:
            self._passed.clear()
            return True
        series = self._series_of(row)
        passed = self._passed[series] = self._passed.get(series, -1) + 1
        if passed % KEPT_OF == 0:
            return True
        self._thinned += 1
        return False

    def _thin_out(self) -> None:
        """Give up every second row of each series, but for those that are being written."""
        if self._series_of is None:
            return
        kept: deque[Row] = deque()
        given_up_next: dict[Hashable, bool] = {}
        for place, row in enumerate(self._rows):
            series = self._series_of(row)
            if place >= self._in_flight and given_up_next.get(series, False):
                given_up_next[series] = False
                self._thinned += 1
            else:
                given_up_next[series] = True
                kept.append(row)
        self._rows = kept

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop`, then write what is left once."""
        while not stop.is_set():
            await wait_for_any(self._more.wait(), stop.wait())
            # Collect for a moment: one COPY for many jobs instead of one each.
            await wait_for_any(stop.wait(), timeout_seconds=FLUSH_SECONDS)
            try:
                await self.flush()
            except StoreUnavailable as error:
                delay = self._backoff.after(error)
                self._tell(ForwardFailed(reason=f"samples: {error}", retry_in_seconds=delay))
                await wait_for_any(stop.wait(), timeout_seconds=delay)

    def tell_shed(self) -> None:
        """Tell what was shed since it was last told: one fact for many rows."""
        self._asked = bool(self._thinned or self._shed)
        if self._thinned:
            self._tell(SamplesThinned(rows=self._thinned))
            self._thinned = 0
        if self._shed:
            self._tell(SamplesDropped(rows=self._shed))
            self._shed = 0

    async def flush(self) -> None:
        """Write all that is queued. Raises StoreUnavailable; what was not written stays queued."""
        self._more.clear()
        self.tell_shed()
        while self._rows and self._sink is not None:
            batch = list(islice(self._rows, BATCH_ROWS))
            self._in_flight = len(batch)
            began = self._clock.monotonic()
            try:
                taken = await self._sink.write(batch)
            except StoreRefused:
                self._tell(SamplesDropped(rows=len(batch)))
            except StoreUnavailable:
                self._in_flight = 0
                self._more.set()
                raise
            else:
                self._tell(SamplesWritten(rows=taken, seconds=self._clock.monotonic() - began))
                self._backoff.reset()
            self._drop(batch)

    def _drop(self, batch: list[Row]) -> None:
        """Take the written rows off; some may have been shed meanwhile."""
        self._in_flight = 0
        written = {id(row) for row in batch}
        while self._rows and id(self._rows[0]) in written:
            self._rows.popleft()
