"""The store's own hashes over what it adds to a row: which run the event belonged to, the job after it, when it came.

The writer's chain covers what the writer said. What the store derives from it stands beside in the same row, and a
second chain covers that, so that no column of the trail can be changed unseen. The database computes these hashes as it
stores (`jobtrail_ingest` in the migrations); here they are recomputed.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

STORE_TAG = b"jobtrail-audit-store-v1\x00"
SNAPSHOT_TAG = b"jobtrail-audit-snapshot-v1\x00"


class StoreNote(msgspec.Struct, frozen=True, kw_only=True):
    """What the store added to a row."""

    received_us: int
    stored_us: int
    changed_by: str | None = None
    source: str | None = None
    change_type: str | None = None
    cluster_name: str | None = None
    job_id: str | None = None
    run: int | None = None
    node: str | None = None
    correlation_id: str | None = None
    unapplied: str | None = None
    request_id: str | None = None


def commit_snapshot(salt: bytes, snapshot: str | None, person: str | None, sent_by: str | None) -> bytes:
    """SHA-256 commitment to what tells of people: the job after the event as PostgreSQL prints it, and who spoke."""
    return hashlib.sha256(SNAPSHOT_TAG + salt + _field(snapshot) + _field(person) + _field(sent_by)).digest()


def hash_note(previous: bytes, row_hash: bytes, snapshot_commitment: bytes, note: StoreNote) -> bytes:
    """SHA-256 over tag, the store hash of the row before (zeros for the first), row hash, snapshot commitment and note.

    The note: both times in µs (i64, big-endian), then each text in the order of `StoreNote` as its length (u32) and its
    UTF-8 bytes; length 2³²-1 and nothing for NULL. Numbers and ids are written as text.
    """
    run = None if note.run is None else str(note.run)
    texts = (
        note.changed_by, note.source, note.change_type, note.cluster_name, note.job_id, run, note.node,
        note.correlation_id, note.unapplied, note.request_id,
    )  # fmt: skip
    fields = b"".join(_field(text) for text in texts)
    times = struct.pack(">qq", note.received_us, note.stored_us)
    return hashlib.sha256(STORE_TAG + previous + row_hash + snapshot_commitment + times + fields).digest()


def _field(text: str | None) -> bytes:
    if text is None:
        return b"\xff\xff\xff\xff"
    raw = text.encode()
    return struct.pack(">I", len(raw)) + raw
