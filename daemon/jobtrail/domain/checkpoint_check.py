"""Recomputes checkpoints: each from its leaves, each as the one that follows the one before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from jobtrail.domain.checkpoints import ZERO_HASH, Checkpoint, Leaf, Sealed, merkle_root, sort_leaves
from jobtrail.domain.verification import Finding


class Keys(Protocol):
    """The keys whose signatures are believed."""

    def check(self, key_id: str | None, signature: bytes, message: bytes) -> str | None:
        """What is wrong with a signature; None when it is right."""
        ...


class StoredCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint as the store holds it, with the hash that it holds beside it."""

    sealed: Sealed
    digest: bytes
    leaves: Sequence[Leaf]


class CheckpointCheck:
    """Checks checkpoints one after the other, from one that is known or from the first."""

    def __init__(self, before: Checkpoint | None = None, *, keys: Keys | None = None, signed: bool = False) -> None:
        """`keys`: signatures are checked; from the first that is signed on each has to be. `signed`: `before` is."""
        self.newest = before
        self.count = 0
        self._keys = keys
        self.signed = signed

    def take(self, stored: StoredCheckpoint) -> list[Finding]:
        """What is wrong with the next checkpoint."""
        found = list(self._findings(stored))
        self.newest = stored.sealed.checkpoint
        self.count += 1
        return found

    def end(self) -> list[Finding]:
        """What is wrong with all of them: whoever has the key was told that they are signed, and none is."""
        if self._keys is None or self.signed or self.newest is None or not self.count:
            return []
        return [_found("signature_missing", self.newest.number, "no checkpoint is signed, and a key is given")]

    def _findings(self, stored: StoredCheckpoint) -> Iterable[Finding]:
        checkpoint, before = stored.sealed.checkpoint, self.newest
        number, expected = checkpoint.number, 1 if before is None else before.number + 1
        if number != expected:
            last = f" to {number - 1}" if number > expected + 1 else ""
            yield _found("checkpoint_missing", expected, f"checkpoints {expected}{last} are not there")
        elif checkpoint.previous != (ZERO_HASH if before is None else before.digest()):
            yield _found("checkpoint_changed", number, "it does not follow the checkpoint before")
        if checkpoint.digest() != stored.digest:
            yield _found("checkpoint_changed", number, "its hash is not that of what it says")
        yield from _about_leaves(checkpoint, stored.leaves)
        yield from self._about_signature(stored.sealed)

    def _about_signature(self, sealed: Sealed) -> Iterable[Finding]:
        if self._keys is None:
            return
        number = sealed.checkpoint.number
        if sealed.signature is None:
            if self.signed:
                yield _found("signature_missing", number, "it is not signed, and one before it is")
            return
        self.signed = True
        problem = self._keys.check(sealed.key_id, sealed.signature, sealed.checkpoint.encoded())
        if problem is not None:
            yield _found("signature_wrong", number, problem)


def compare_anchors(anchors: Iterable[Sealed], held: dict[int, bytes], newest: int) -> list[Finding]:
    """What differs between checkpoints kept elsewhere and those of the store. `held`: number -> hash, recomputed."""
    findings: list[Finding] = []
    for anchor in anchors:
        number = anchor.checkpoint.number
        if number not in held:
            detail = (
                f"it is anchored, and the store's newest is {newest}" if number > newest else "it is anchored and gone"
            )
            findings.append(_found("anchor_missing", number, detail))
        elif held[number] != anchor.checkpoint.digest():
            findings.append(_found("anchor_differs", number, "the store holds another one than is anchored"))
    return findings


def _about_leaves(checkpoint: Checkpoint, leaves: Sequence[Leaf]) -> Iterable[Finding]:
    number = checkpoint.number
    if len(leaves) != checkpoint.leaf_count:
        yield _found("root_differs", number, f"it has {len(leaves)} leaves instead of {checkpoint.leaf_count}")
        return
    try:
        in_order = sort_leaves(leaves) == list(leaves)
        root = merkle_root(leaves)
    except ValueError as error:
        yield _found("root_differs", number, str(error))
        return
    if not in_order or root != checkpoint.root:
        yield _found("root_differs", number, "its leaves do not give its root")


def _found(code: str, number: int, detail: str) -> Finding:
    return Finding(code=code, checkpoint=number, detail=detail)
