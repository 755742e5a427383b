"""A writer as a witness: it checks what the store answers of its checkpoints against its own chain, and keeps them."""

from __future__ import annotations

from jobtrail.core.facts import EventRejected, Observer
from jobtrail.core.ports import EventSpool
from jobtrail.core.trail.facts import CheckpointSeen, SealFailed, WitnessMismatch
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.core.trail.ports import AnchorLog
from jobtrail.domain.checkpoints import PREFIX_DIGITS, Anchor, Checkpoint, Inclusion, Sealed
from jobtrail.domain.errors import SpoolFull
from jobtrail.domain.events import EventKind

SOURCE = "witness"
PROBLEMS = ("set_back", "replaced", "unlinked", "no_proof", "other_chain", "beyond", "row_differs")


class Witness:
    """Takes what the store answers. What contradicts is told, and recorded in the chain, once each."""

    def __init__(self, spool: EventSpool, events: OwnEvents, kept: AnchorLog, *, tell: Observer) -> None:
        self._spool = spool
        self._events = events
        self._kept = kept
        self._tell = tell
        self._last: Checkpoint | None = None
        self._own: Checkpoint | None = None
        self._read = False
        self._told: set[tuple[str, int]] = set()

    async def take(self, anchor: Anchor) -> None:
        """Check what the store answered, and keep the checkpoint if it is new. Raises SpoolBroken."""
        try:
            await self._take(anchor)
        except OSError as error:
            self._tell(SealFailed(reason=f"a checkpoint is not kept: {error}"))

    async def _take(self, anchor: Anchor) -> None:
        if not self._read:
            last = await self._kept.last()
            self._last, self._read = None if last is None else last.checkpoint, True
        newest = anchor.newest.checkpoint
        if newest != self._last:
            await self._take_newest(anchor.newest)
        if anchor.own is not None and anchor.own.sealed.checkpoint != self._own:
            await self._take_own(anchor.own)

    async def _take_newest(self, newest: Sealed) -> None:
        checkpoint, last = newest.checkpoint, self._last
        if last is not None and (problem := _contradiction(last, checkpoint)) is not None:
            await self._alarm(*problem, checkpoint.number)
        await self._kept.append(newest)
        self._last = checkpoint
        self._tell(
            CheckpointSeen(
                number=checkpoint.number,
                digest=checkpoint.digest().hex()[:PREFIX_DIGITS],
                root=checkpoint.root.hex()[:PREFIX_DIGITS],
                sealed_us=checkpoint.time_us,
            )
        )

    async def _take_own(self, own: Inclusion) -> None:
        problem = await self._wrong_with(own)
        if problem is not None:
            await self._alarm(*problem, own.sealed.checkpoint.number)
        self._own = own.sealed.checkpoint

    async def _wrong_with(self, own: Inclusion) -> tuple[str, str] | None:
        status, leaf = self._spool.status(), own.leaf
        if leaf.chain_id != status.chain_id:
            return "other_chain", f"the store proves chain {leaf.chain_id} to the writer of {status.chain_id}"
        if not own.holds():
            return "no_proof", "the path does not lead from this chain's head to the checkpoint's root"
        if leaf.head_seq > status.head_seq:
            return "beyond", f"the checkpoint covers sequence {leaf.head_seq}, and this chain ends at {status.head_seq}"
        rows = await self._spool.read_after(leaf.head_seq - 1, limit=1, max_bytes=1)
        if rows and rows[0].seq == leaf.head_seq and rows[0].row_hash != leaf.head_hash:
            return "row_differs", f"the checkpoint covers another row under sequence {leaf.head_seq} than was written"
        return None

    async def _alarm(self, problem: str, detail: str, number: int) -> None:
        if (problem, number) in self._told:
            return
        self._told.add((problem, number))
        self._tell(WitnessMismatch(problem=problem, number=number, detail=detail))
        note = f"{problem}: checkpoint {number}: {detail}"
        try:
            await self._events.record(EventKind.WITNESS_MISMATCH, SOURCE, note=note)
        except SpoolFull as error:
            self._tell(EventRejected(reason="spool_full", detail=str(error)))


def _contradiction(last: Checkpoint, newest: Checkpoint) -> tuple[str, str] | None:
    """What shows that the store's checkpoints are not those of before."""
    if newest.number < last.number:
        return "set_back", f"the store's newest checkpoint is {newest.number}, and it was {last.number} before"
    if newest.number == last.number:
        return "replaced", "the store holds another checkpoint under this number than before"
    if newest.number == last.number + 1 and newest.previous != last.digest():
        return "unlinked", f"it does not follow checkpoint {last.number} as it was told before"
    return None
