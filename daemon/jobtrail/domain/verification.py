"""Recomputes rows of the trail: whether each follows the one before, and still says what it said when it was stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from jobtrail.domain.audit import hash_row, is_committed
from jobtrail.domain.checkpoints import ZERO_HASH, Leaf
from jobtrail.domain.store_chain import StoreNote, commit_snapshot, hash_note

CODES = (
    "row_missing", "row_changed", "link_broken", "columns_changed", "payload_missing", "payload_changed",
    "snapshot_changed", "hash_missing", "tail_missing", "chain_missing", "head_differs", "removal_unreadable",
    "checkpoint_missing", "checkpoint_changed", "root_differs", "leaf_differs", "signature_missing", "signature_wrong",
    "anchor_differs", "anchor_missing", "chain_unexplained", "chain_predecessor_differs",
)  # fmt: skip


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and where: in a row of a chain, or in a checkpoint."""

    code: str  # one of CODES
    detail: str
    chain_id: str | None = None
    seq: int | None = None
    checkpoint: int | None = None

    def __str__(self) -> str:
        where = [f"checkpoint {self.checkpoint}"] if self.checkpoint is not None else []
        where += [f"chain {self.chain_id}"] if self.chain_id is not None else []
        where += [f"sequence {self.seq}"] if self.seq is not None else []
        return f"{self.code}: {', '.join(where)}: {self.detail}" if where else f"{self.code}: {self.detail}"


class TrailRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row as the database holds it. Without payload and salt when these were not asked for, or are gone."""

    chain_id: str
    seq: int
    event_id: str
    kind: str
    time_us: int
    prev_hash: bytes
    commitment: bytes
    row_hash: bytes
    note: StoreNote
    snapshot_commitment: bytes | None = None  # None with store_hash, in rows stored before these were kept
    store_hash: bytes | None = None
    payload: bytes | None = None
    salt: bytes | None = None
    snapshot: str | None = None
    person: str | None = None
    sent_by: str | None = None


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far a chain is recomputed. `store_hash` is zeros where no row had one yet."""

    seq: int = 0
    row_hash: bytes = ZERO_HASH
    store_hash: bytes = ZERO_HASH

    @staticmethod
    def of(leaf: Leaf) -> Position:
        """The position that a checkpoint covers."""
        return Position(seq=leaf.head_seq, row_hash=leaf.head_hash, store_hash=leaf.store_hash)

    def leaf(self, chain_id: str) -> Leaf:
        """The leaf of a chain that ends here."""
        return Leaf(chain_id=chain_id, head_seq=self.seq, head_hash=self.row_hash, store_hash=self.store_hash)


class Removals:
    """Which rows and payloads were removed by order, by what the database's own chain says."""

    def __init__(self) -> None:
        self._payloads: dict[str, list[tuple[int, int, int]]] = {}
        self._begins: dict[str, Position] = {}

    def add(self, kind: str, removal: Mapping[str, Any], noted_seq: int) -> None:
        """Take in a row about a removal. Raises ValueError, KeyError or TypeError when it has not the form of one."""
        if kind not in ("payload_erased", "payload_pruned", "trail_pruned"):
            return
        for chain_id, first, last, *hashes in removal["ranges"]:
            self._payloads.setdefault(str(chain_id), []).append((int(first), int(last), noted_seq))
            if kind == "trail_pruned":
                row_hash, store_hash = map(bytes.fromhex, hashes)
                self._begins[str(chain_id)] = Position(seq=int(last), row_hash=row_hash, store_hash=store_hash)

    def beginning(self, chain_id: str) -> Position:
        """Where the chain begins now: behind what was pruned of it."""
        return self._begins.get(chain_id, Position())

    def of_payload(self, chain_id: str, seq: int) -> int | None:
        """The row of the database's own chain under which a payload was removed; None when it was not."""
        for first, last, noted in self._payloads.get(chain_id, ()):
            if first <= seq <= last:
                return noted
        return None


class ChainCheck:
    """Recomputes one chain, row by row from a position that is known."""

    def __init__(self, chain_id: str, start: Position, removals: Removals | None = None) -> None:
        """`removals`: payloads are checked too, and those that are missing must be explained by it."""
        self.chain_id = chain_id
        self.position = self.good = start  # `good` goes no further than the first finding
        self._broken = False
        self.rows = 0
        self.removed = 0
        self._removals = removals

    def take(self, row: TrailRow) -> list[Finding]:
        """What is wrong with the next row. What follows is checked against what the row says: each break shows once."""
        found = list(self._findings(row))
        self.rows += 1
        self.position = Position(seq=row.seq, row_hash=row.row_hash, store_hash=row.store_hash or ZERO_HASH)
        self._broken = self._broken or bool(found)
        if not self._broken:
            self.good = self.position
        return found

    def _findings(self, row: TrailRow) -> Iterable[Finding]:
        before = self.position
        if row.seq != before.seq + 1:
            last = f" to {row.seq - 1}" if row.seq > before.seq + 2 else ""
            yield self._found("row_missing", before.seq + 1, f"rows {before.seq + 1}{last} are not there")
        elif row.prev_hash != before.row_hash:
            yield self._found("link_broken", row.seq, "its previous hash is not the hash of the row before")
        if row.row_hash != _row_hash(row):
            yield self._found("row_changed", row.seq, "its hash is not that of what it says")
        yield from self._about_store(row, before)
        if self._removals is not None:
            yield from self._about_payload(row, self._removals)

    def _about_store(self, row: TrailRow, before: Position) -> Iterable[Finding]:
        if row.store_hash is None or row.snapshot_commitment is None:
            if before.store_hash != ZERO_HASH:
                yield self._found("hash_missing", row.seq, "the store's hash is missing, and the row before has one")
            return
        if row.seq != before.seq + 1:
            return  # what the hash follows is missing, which is told already
        if row.store_hash != hash_note(before.store_hash, row.row_hash, row.snapshot_commitment, row.note):
            yield self._found(
                "columns_changed", row.seq, "what the store noted beside the event is not what it noted then"
            )

    def _about_payload(self, row: TrailRow, removals: Removals) -> Iterable[Finding]:
        if row.payload is None or row.salt is None:
            if removals.of_payload(row.chain_id, row.seq) is None:
                yield self._found("payload_missing", row.seq, "its payload is not there, and no row says why")
            else:
                self.removed += 1
            return
        if not is_committed(row.commitment, row.salt, row.payload):
            yield self._found("payload_changed", row.seq, "its payload is not what was committed to")
        if row.snapshot_commitment is not None and row.snapshot_commitment != commit_snapshot(
            row.salt, row.snapshot, row.person, row.sent_by
        ):
            yield self._found(
                "snapshot_changed", row.seq, "the copy of the job, or who spoke, is not what was committed to"
            )
        if row.store_hash is None:
            yield from self._about_copies(row, row.payload)

    def _about_copies(self, row: TrailRow, payload: bytes) -> Iterable[Finding]:
        """Of rows without a hash of the store: the columns against the payload they were copied from."""
        try:
            event = msgspec.json.decode(payload)
        except msgspec.DecodeError:
            return
        if not isinstance(event, dict):
            return
        copies = (("changed_by", row.note.changed_by), ("source", row.note.source), ("node", row.note.node),
                  ("cluster", row.note.cluster_name))  # fmt: skip
        for name, held in copies:
            if held is not None and held != event.get(name):
                yield self._found("columns_changed", row.seq, f"column {name} differs from the payload")

    def _found(self, code: str, seq: int, detail: str) -> Finding:
        return Finding(code=code, chain_id=self.chain_id, seq=seq, detail=detail)


def _row_hash(row: TrailRow) -> bytes | None:
    try:
        return hash_row(row.chain_id, row.seq, row.prev_hash, row.time_us, row.kind, row.event_id, row.commitment)
    except ValueError:
        return None
