"""Checkpoints of the audit trail: one hash over the heads of many chains, which witnesses outside the database keep.

A chain alone can be recomputed as a whole by whoever owns the database. A checkpoint's root, once it is known outside,
fixes every row below the heads it covers. The tree is that of RFC 9162 (section 2.1), so that a chain's place in it is
proved by a few hashes; checkpoints are chained as rows are, so the newest one fixes all before it.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Sequence
from itertools import pairwise

import msgspec

LEAF_TAG = b"jobtrail-audit-leaf-v1\x00"
CHECKPOINT_TAG = b"jobtrail-audit-checkpoint-v1\x00"
ZERO_HASH = bytes(32)
HASH_BYTES = 32
PREFIX_DIGITS = 16  # of a hash on /metrics: enough that no other checkpoint is found that begins alike


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a chain as a checkpoint covers it, with the store's hash of that row (zeros for none)."""

    chain_id: str
    head_seq: int
    head_hash: bytes
    store_hash: bytes = ZERO_HASH

    def encoded(self) -> bytes:
        """What the tree hashes: tag, chain id (16 bytes), sequence (u64, big-endian), row hash (32), store hash (32).

        Raises ValueError for what the layout cannot hold.
        """
        chain = uuid.UUID(self.chain_id)
        if str(chain) != self.chain_id:
            raise ValueError(f"{self.chain_id} is not the canonical form of a UUID")
        return LEAF_TAG + chain.bytes + _number(self.head_seq) + _hash(self.head_hash) + _hash(self.store_hash)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What is sealed. `total_rows`: rows of all chains up to the heads that this and earlier checkpoints cover."""

    number: int  # from 1 on, without gaps
    previous: bytes  # hash of the checkpoint before; zeros for the first
    root: bytes
    leaf_count: int
    total_rows: int
    time_us: int

    def encoded(self) -> bytes:
        """What is hashed and signed: tag, number, previous hash (32), root (32), leaf count, total rows, time in µs.

        All numbers are u64, big-endian. Raises ValueError for what the layout cannot hold.
        """
        numbers = b"".join(_number(value) for value in (self.leaf_count, self.total_rows, self.time_us))
        return CHECKPOINT_TAG + _number(self.number) + _hash(self.previous) + _hash(self.root) + numbers

    def digest(self) -> bytes:
        """The checkpoint's hash: SHA-256 of `encoded`."""
        return hashlib.sha256(self.encoded()).digest()


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint with its Ed25519 signature over `Checkpoint.encoded`, where a key is configured.

    `key_id`: first 16 hexadecimal digits of the SHA-256 of the raw public key.
    """

    checkpoint: Checkpoint
    signature: bytes | None = None
    key_id: str | None = None


class Inclusion(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a checkpoint covers a chain: its leaf, its place among the leaves, and the path to the root."""

    sealed: Sealed
    leaf: Leaf
    index: int
    path: tuple[bytes, ...]

    def holds(self) -> bool:
        """Whether the path leads from the leaf to the checkpoint's root."""
        checkpoint = self.sealed.checkpoint
        try:
            return verify_path(
                self.leaf, index=self.index, count=checkpoint.leaf_count, path=self.path, root=checkpoint.root
            )
        except ValueError:
            return False


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer is told with each batch: the newest checkpoint, and the newest that covers the writer's chain."""

    newest: Sealed
    own: Inclusion | None = None


def sort_leaves(leaves: Sequence[Leaf]) -> list[Leaf]:
    """Leaves in the tree's order: by chain id. Raises ValueError when a chain has two."""
    ordered = sorted(leaves, key=lambda leaf: uuid.UUID(leaf.chain_id).bytes)
    for one, other in pairwise(ordered):
        if one.chain_id == other.chain_id:
            raise ValueError(f"chain {one.chain_id} has two leaves")
    return ordered


def leaf_hash(leaf: Leaf) -> bytes:
    """Hash of a leaf: SHA-256 of 0x00 and the leaf."""
    return hashlib.sha256(b"\x00" + leaf.encoded()).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256 of 0x01 and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle_root(leaves: Sequence[Leaf]) -> bytes:
    """The root of the tree of `leaves` in their order; SHA-256 of nothing for no leaves."""
    return tree(leaves)[-1][0] if leaves else hashlib.sha256(b"").digest()


def tree(leaves: Sequence[Leaf]) -> list[list[bytes]]:
    """All levels of the tree, leaves first. A node without a neighbour goes up as it is.

    That gives the tree of RFC 9162, which splits at the largest power of two below the number of leaves: each full
    left part is a perfect tree, and what remains on the right meets it as late.
    """
    levels = [[leaf_hash(leaf) for leaf in leaves]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            above.append(below[-1])
        levels.append(above)
    return levels


def path_in(levels: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    """The path of the leaf at `index` in a tree made by `tree`: the neighbours on its way up, lowest first."""
    path: list[bytes] = []
    for level in levels[:-1]:
        neighbour = index ^ 1
        if neighbour < len(level):
            path.append(level[neighbour])
        index >>= 1
    return tuple(path)


def verify_path(leaf: Leaf, *, index: int, count: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` leads from `leaf`, at `index` of `count`, to `root` (RFC 9162, section 2.1.3.2).

    Raises ValueError for a leaf that the layout cannot hold.
    """
    if not 0 <= index < count:
        return False
    here, last, value = index, count - 1, leaf_hash(leaf)
    for neighbour in path:
        if last == 0:
            return False
        if here % 2 or here == last:
            value = node_hash(neighbour, value)
            while here % 2 == 0 and here:
                here, last = here >> 1, last >> 1
        else:
            value = node_hash(value, neighbour)
        here, last = here >> 1, last >> 1
    return last == 0 and value == root


def _number(value: int) -> bytes:
    try:
        return struct.pack(">Q", value)
    except struct.error as error:
        raise ValueError(f"{value} does not fit the layout of a checkpoint") from error


def _hash(value: bytes) -> bytes:
    if len(value) != HASH_BYTES:
        raise ValueError(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
    return value
