"""Moves events from the spool to the store: in order, in batches, as long as it takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from jobtrail.core.facts import (
    ChainGivenUp,
    EventsForwarded,
    ForwardConflict,
    ForwardFailed,
    Observer,
    ProjectionRefused,
)
from jobtrail.core.ports import TRAIL_ONLY, Clock, EventSink, EventSpool, StoreReport
from jobtrail.core.waiting import Backoff, wait_for_any
from jobtrail.domain.audit import ChainedEvent, ChainHead
from jobtrail.domain.checkpoints import Anchor
from jobtrail.domain.errors import ChainGap, SpoolFull, StoreRefused, StoreUnavailable

BATCH_EVENTS = 500
BATCH_BYTES = 4 * 1024 * 1024
GIVE_UP_TRIES = 5  # how often in a row a chain must be found not to fit the store's copy before it is given up
LOOK_SECONDS = 300.0  # how often a node that has nothing to send asks where the store's copy ends
REFUSAL_SECONDS = 3600.0  # how long a refused event is told of on /health: at least a few scrapes and a person's look


class Forwarder:
    """Keeps the store's copy of this node's chain up to date.

    The position is never remembered across a failure: the store says where its copy ends, so a store that was restored
    from a backup gets again what it lost, as far as the spool still holds it. Where the two cannot be brought together,
    the chain is given up: what the store is not known to hold begins a new one, and the first row of that says why.
    """

    def __init__(
        self,
        spool: EventSpool,
        sink: EventSink,
        *,
        node: str,
        clock: Clock,
        tell: Observer,
        backoff: Backoff,
        witness: Callable[[Anchor], Awaitable[None]] | None = None,
    ) -> None:
        """`witness` is given what the store answers of its checkpoints."""
        self._spool = spool
        self._sink = sink
        self._node = node
        self._clock = clock
        self._tell = tell
        self._backoff = backoff
        self._witness = witness
        self._position: int | None = None
        self._one_by_one_until = 0
        self._misfits = 0  # times in a row that the store's copy did not fit the chain
        self._resumed = False  # whether the store sent us elsewhere since it last took a batch
        self.last_problem: str | None = None
        self._refusals = 0  # events that changed no job, since the last hour without one
        self._refusal = ""  # why the last of them did not
        self._refusal_ends = 0.0  # when that is told no more, on the steady clock

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until `stop`."""
        while not stop.is_set():
            try:
                sent = await self._forward_batch()
            except ChainGap as gap:
                await self._resume_after(gap.head_seq, stop)
            except StoreUnavailable as error:
                known = self._position if error.turned_away else None
                delay = self._backoff.after(error)
                await self._wait_out(str(error), stop, delay)
                self._position = known
            else:
                self._backoff.reset()
                self._misfits = 0
                self._resumed = False
                self.last_problem = None
                if not sent:
                    await self._wait_for_more(stop)

    async def _wait_for_more(self, stop: asyncio.Event) -> None:
        """Wait for an event. When none comes for long, the store is asked again where its copy ends: one that was
        restored from a backup would else wait with what it lost until this node has something to say."""
        position = self._position or 0
        seconds = LOOK_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing
        await wait_for_any(self._spool.wait_beyond(position), stop.wait(), timeout_seconds=seconds)
        if self._spool.status().head_seq <= position:
            self._position = None

    async def drain(self) -> None:
        """Forward what is there, once, without waiting for more. Raises StoreUnavailable, ChainGap."""
        while await self._forward_batch():
            pass

    async def _forward_batch(self) -> bool:
        """Forward one batch; False when there was nothing to forward."""
        position = await self._find_position()
        limit = 1 if position < self._one_by_one_until else BATCH_EVENTS
        batch = await self._spool.read_after(position, limit=limit, max_bytes=BATCH_BYTES)
        if not batch:
            return False
        if batch[0].seq != position + 1:
            detail = (
                f"the store ends at sequence {position} and this node's oldest event is {batch[0].seq}: "
                f"the events between were purged before the store was restored"
            )
            await self._give_up("purged", detail, after_seq=position)
        began = self._clock.monotonic()
        report = await self._store(batch)
        if report is not None:
            self._account(report, self._clock.monotonic() - began)
            if report.head.seq <= position:
                raise StoreUnavailable(f"the store took a batch and still ends at sequence {report.head.seq}")
            if report.head.seq > batch[-1].seq:  # another program's answer: nobody else writes this chain
                last, claimed = batch[-1].seq, report.head.seq
                raise StoreUnavailable(
                    f"the store was sent events up to sequence {last} and claims to end at {claimed}"
                )
            self._position = report.head.seq
            await self._spool.mark_forwarded(report.head.seq)
            if self._witness is not None and report.anchor is not None:
                await self._witness(report.anchor)
        return True

    async def _find_position(self) -> int:
        if self._position is None:
            head = await self._sink.head(self._spool.status().chain_id)
            own = self._spool.status().head_seq
            if head.seq > own:
                detail = (
                    f"the store holds this chain up to sequence {head.seq} and this node's spool ends at {own}: "
                    f"the spool was set back, as by restoring a snapshot of the machine"
                )
                await self._give_up("set_back", detail, head_seq=head.seq)
            if await self._differs(head):
                detail = f"the store holds another event as this chain's number {head.seq}"
                await self._give_up("another_row", detail, head_seq=head.seq)
            self._position = head.seq
            await self._spool.mark_forwarded(head.seq)
        return self._position

    async def _differs(self, head: ChainHead) -> bool:
        """Whether the spool still holds the event of that number, and it is another."""
        if head.seq == 0:
            return False
        rows = await self._spool.read_after(head.seq - 1, limit=1, max_bytes=BATCH_BYTES)
        return bool(rows) and rows[0].seq == head.seq and rows[0].row_hash != head.row_hash

    async def _give_up(self, reason: str, detail: str, *, after_seq: int | None = None, head_seq: int = 0) -> NoReturn:
        """Begin a new chain, once the misfit was seen often enough to be none that passes, as while a store fails over.

        Raises StoreUnavailable until then, and where the spool has no room; at last SpoolBroken.
        """
        self._misfits += 1
        if self._misfits < GIVE_UP_TRIES:
            raise StoreUnavailable(detail)
        if after_seq is None:
            after_seq = await self._find_fork(head_seq)
        self._tell(ChainGivenUp(reason=reason, detail=detail))
        try:
            await self._spool.give_up_chain(after_seq, detail)
        except SpoolFull as error:
            raise StoreUnavailable(f"{detail}; and the spool has no room for the end of the chain") from error

    async def _find_fork(self, head_seq: int) -> int:
        """The last event that store and spool are known to have alike.

        From the last one known to be forwarded on, they are sent once more: the store compares them with what it holds
        and puts those that differ on record.
        """
        position = min(self._spool.status().forwarded_seq, head_seq - 1)
        while position < head_seq:
            rows = await self._spool.read_after(position, limit=BATCH_EVENTS, max_bytes=BATCH_BYTES)
            batch = [row for row in rows if row.seq <= head_seq]
            if not batch or batch[0].seq != position + 1:
                break
            report = await self._sink.store(batch, node=self._node)
            self._account(report, 0.0)
            if report.conflicts:
                return min(report.conflicts) - 1
            position = batch[-1].seq
        return position

    async def _store(self, batch: Sequence[ChainedEvent]) -> StoreReport | None:
        """Store a batch; when its content is refused, go one by one and keep the refused event in the trail only."""
        try:
            return await self._sink.store(batch, node=self._node)
        except StoreRefused as error:
            if len(batch) > 1:
                self._one_by_one_until = batch[-1].seq
                return None
            return await self._store_trail_only(batch, str(error))

    async def _store_trail_only(self, batch: Sequence[ChainedEvent], reason: str) -> StoreReport:
        event = batch[0]
        try:
            report = await self._sink.store(batch, node=self._node, trail_only=TRAIL_ONLY)
        except StoreRefused as error:
            raise StoreUnavailable(f"the store refuses event {event.seq} even for the trail: {error}") from error
        await self._spool.record_refusal(event.seq, reason)
        self._note_refusal(event.seq, reason)
        return report

    def _account(self, report: StoreReport, seconds: float) -> None:
        self._tell(EventsForwarded(stored=report.stored, replayed=report.replayed, seconds=seconds))
        for seq in report.conflicts:
            self._tell(ForwardConflict(seq=seq))
        for seq, reason in report.unapplied.items():
            self._note_refusal(seq, reason)

    def refusal(self) -> str | None:
        """What became of events that are in the trail and changed no job, for an hour after the last one."""
        if self._clock.monotonic() >= self._refusal_ends:
            return None
        events = "1 event" if self._refusals == 1 else f"{self._refusals} events"
        return f"{events} of this daemon changed no job and stand in the trail alone; of the last one: {self._refusal}"

    def _note_refusal(self, seq: int, reason: str) -> None:
        now = self._clock.monotonic()
        self._refusals = self._refusals + 1 if now < self._refusal_ends else 1
        self._refusal, self._refusal_ends = reason, now + REFUSAL_SECONDS
        self._tell(ProjectionRefused(seq=seq, reason=reason))

    async def _resume_after(self, head_seq: int, stop: asyncio.Event) -> None:
        if self._resumed or self._position == head_seq:
            reason = f"the store asks for what follows {head_seq} and refuses it"
            await self._wait_out(reason, stop, self._backoff.next_seconds())
        else:
            self._position, self._resumed = head_seq, True

    async def _wait_out(self, reason: str, stop: asyncio.Event, delay: float) -> None:
        self._position = None
        self.last_problem = reason
        self._tell(ForwardFailed(reason=reason, retry_in_seconds=delay))
        await wait_for_any(stop.wait(), timeout_seconds=delay)
