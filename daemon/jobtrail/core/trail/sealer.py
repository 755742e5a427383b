"""Seals the trail: each minute one checkpoint over all chains that moved, by one daemon of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jobtrail.core.facts import Observer
from jobtrail.core.ports import Clock
from jobtrail.core.trail.facts import CheckpointSealed, CheckpointSeen, SealFailed, SealTurn, TrailBroken
from jobtrail.core.trail.ports import AnchorLog, Recomputed, SealStore, Signer
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.checkpoints import (
    PREFIX_DIGITS,
    ZERO_HASH,
    Checkpoint,
    Inclusion,
    Sealed,
    path_in,
    sort_leaves,
    tree,
)
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from jobtrail.domain.verification import Finding


class Sealer:
    """Every server looks at the newest checkpoint and anchors it; the one that leads makes the next.

    What is sealed was recomputed from the stored rows by this daemon, not taken from what the store says of its heads.
    """

    def __init__(
        self,
        store: SealStore,
        *,
        leads: Callable[[], Awaitable[bool]],
        signer: Signer | None,
        anchors: AnchorLog | None,
        clock: Clock,
        tell: Observer,
        every_seconds: float,
    ) -> None:
        self._store = store
        self._leads = leads
        self._signer = signer
        self._anchors = anchors
        self._clock = clock
        self._tell = tell
        self._every = every_seconds
        self._newest: Sealed | None = None
        self._anchored: Checkpoint | None = None
        self._told: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Seal until `stop`; a store that is away costs the turn alone."""
        while not stop.is_set():
            try:
                await self.turn()
            except (StoreUnavailable, StoreRefused) as error:
                self._tell(SealFailed(reason=str(error)))
            except OSError as error:
                self._tell(SealFailed(reason=f"a checkpoint is not anchored: {error}"))
            await wait_for_any(stop.wait(), timeout_seconds=self._every)

    async def turn(self) -> None:
        """Seal what is new, if this daemon leads. Raises StoreUnavailable, StoreRefused, OSError."""
        if self._newest is None and self._anchors is not None:
            self._newest = await self._anchors.last()
            self._anchored = None if self._newest is None else self._newest.checkpoint
        if await self._leads():
            await self._seal()
            self._tell(SealTurn())
        else:
            await self._see(await self._store.newest())

    async def _seal(self) -> None:
        began = self._clock.monotonic()
        now = await self._store.recompute()
        for finding in now.findings:
            self._alarm(finding)
        await self._see(now.newest)
        proofs = self._next(now)
        if not proofs or not await self._store.keep(proofs[0].sealed, proofs):
            return
        sealed = proofs[0].sealed
        rows = sum(good.seq - start.seq for start, good in now.chains.values())
        seconds = self._clock.monotonic() - began
        signed = sealed.signature is not None
        self._tell(
            CheckpointSealed(
                number=sealed.checkpoint.number, leaves=len(proofs), rows=rows, signed=signed, seconds=seconds
            )
        )
        await self._see(sealed)

    def _next(self, now: Recomputed) -> list[Inclusion]:
        """The next checkpoint as its leaves see it; empty when no chain moved."""
        moved = {chain: good for chain, (start, good) in now.chains.items() if good.seq > start.seq}
        leaves = sort_leaves([good.leaf(chain) for chain, good in moved.items()])
        if not leaves:
            return []
        before = None if now.newest is None else now.newest.checkpoint
        levels = tree(leaves)
        checkpoint = Checkpoint(
            number=1 if before is None else before.number + 1,
            previous=ZERO_HASH if before is None else before.digest(),
            root=levels[-1][0],
            leaf_count=len(leaves),
            total_rows=(0 if before is None else before.total_rows)
            + sum(good.seq - now.chains[chain][0].seq for chain, good in moved.items()),
            time_us=self._clock.time_us(),
        )
        sealed = Sealed(checkpoint=checkpoint)
        if self._signer is not None:
            signature = self._signer.sign(checkpoint.encoded())
            sealed = Sealed(checkpoint=checkpoint, signature=signature, key_id=self._signer.key_id)
        return [
            Inclusion(sealed=sealed, leaf=leaf, index=index, path=path_in(levels, index))
            for index, leaf in enumerate(leaves)
        ]

    async def _see(self, newest: Sealed | None) -> None:
        """Show and anchor the newest checkpoint, and tell when the store's history is not the one seen before."""
        seen, self._newest = self._newest, newest or self._newest
        problem = None if seen is None else await self._set_back(seen, newest)
        if problem is not None:
            self._alarm(problem)
        if newest is None:
            return
        checkpoint = newest.checkpoint
        self._tell(
            CheckpointSeen(
                number=checkpoint.number,
                digest=checkpoint.digest().hex()[:PREFIX_DIGITS],
                root=checkpoint.root.hex()[:PREFIX_DIGITS],
                sealed_us=checkpoint.time_us,
            )
        )
        if self._anchors is not None and self._anchored != checkpoint:
            await self._anchors.append(newest)  # where it fails, the next turn tries again
            self._anchored = checkpoint

    async def _set_back(self, seen: Sealed, newest: Sealed | None) -> Finding | None:
        if newest is None or newest.checkpoint.number <= seen.checkpoint.number + 1:
            return _set_back(seen, newest)
        # Others sealed meanwhile, or somebody made another history with more checkpoints than this one had.
        number = seen.checkpoint.number
        if (held := await self._store.checkpoint(number)) is None:
            detail = "it was seen here, and the store has later ones alone"
            return Finding(code="checkpoint_missing", checkpoint=number, detail=detail)
        return _set_back(seen, held)

    def _alarm(self, finding: Finding) -> None:
        text = str(finding)
        if text in self._told:
            return
        self._told.add(text)
        where = f"chain {finding.chain_id} sequence {finding.seq}" if finding.chain_id else "checkpoints"
        self._tell(TrailBroken(code=finding.code, where=where, detail=finding.detail))


def _set_back(seen: Sealed, newest: Sealed | None) -> Finding | None:
    """What shows that the store lost or replaced checkpoints since `seen`."""
    was, now = seen.checkpoint, None if newest is None else newest.checkpoint
    if now is None or now.number < was.number:
        held = "none" if now is None else str(now.number)
        detail = f"the store's newest checkpoint is {held}, and {was.number} was seen here"
        return Finding(code="checkpoint_missing", checkpoint=was.number, detail=detail)
    if now.number == was.number and now != was:
        return Finding(code="checkpoint_changed", checkpoint=was.number, detail="the store holds another one now")
    if now.number == was.number + 1 and now.previous != was.digest():
        return Finding(
            code="checkpoint_changed", checkpoint=now.number, detail="it does not follow the one seen before"
        )
    return None
