"""The hash chain of the audit trail.

Each writer (a node's spool) owns one chain. A row's hash covers the row before it, so a change, a deletion or an
insertion anywhere is visible to whoever recomputes the chain. The payload enters through a salted commitment: erasing
payload and salt leaves the chain intact and tells nothing about what was erased.
"""

from __future__ import annotations

import hashlib
import struct
import uuid

import msgspec

ROW_TAG = b"jobtrail-audit-row-v1\x00"
PAYLOAD_TAG = b"jobtrail-audit-payload-v1\x00"
SALT_BYTES = 32
ZERO_HASH = bytes(32)


class ChainHead(msgspec.Struct, frozen=True):
    """The last row of a chain: its sequence number (0 for an empty chain) and hash."""

    seq: int
    row_hash: bytes


EMPTY_CHAIN = ChainHead(0, ZERO_HASH)


class ChainedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands in its chain; `payload` is exactly what was hashed.

    The hash covers everything but `received_us`, which is the receiver's note of when it took the event in.
    """

    chain_id: str
    seq: int
    event_id: str
    kind: str
    time_us: int
    received_us: int
    payload: bytes
    salt: bytes
    prev_hash: bytes
    commitment: bytes
    row_hash: bytes


def commit(salt: bytes, payload: bytes) -> bytes:
    """SHA-256 commitment to a payload, hidden by `salt` (32 random bytes)."""
    return hashlib.sha256(PAYLOAD_TAG + salt + payload).digest()


def is_committed(commitment: bytes, salt: bytes, payload: bytes) -> bool:
    """Whether `commitment` is to `payload`. A salt of another length would let bytes pass from one to the other."""
    return len(salt) == SALT_BYTES and commitment == commit(salt, payload)


def hash_row(
    chain_id: str, seq: int, prev_hash: bytes, time_us: int, kind: str, event_id: str, commitment: bytes
) -> bytes:
    """SHA-256 over the fixed binary layout of a row.

    Layout: tag, chain id (16 bytes), sequence (u64), previous hash (32), time in µs (u64), kind (u16 length and UTF-8),
    event id (16), commitment (32); all integers big-endian. Raises ValueError for what the layout cannot hold, among it
    an id that is not a UUID in its canonical form: two spellings would share one hash.
    """
    name = kind.encode()
    try:
        layout = struct.pack(
            f">16sQ32sQH{len(name)}s16s32s",
            _uuid_bytes(chain_id),
            seq,
            prev_hash,
            time_us,
            len(name),
            name,
            _uuid_bytes(event_id),
            commitment,
        )
    except struct.error as error:
        raise ValueError("a value does not fit the layout of a row") from error
    return hashlib.sha256(ROW_TAG + layout).digest()


def _uuid_bytes(text: str) -> bytes:
    parsed = uuid.UUID(text)
    if str(parsed) != text:
        raise ValueError(f"{text} is not the canonical form of a UUID")
    return parsed.bytes


def link(
    head: ChainHead,
    *,
    chain_id: str,
    event_id: str,
    kind: str,
    time_us: int,
    received_us: int,
    payload: bytes,
    salt: bytes,
) -> ChainedEvent:
    """The row that follows `head` in chain `chain_id`. Raises ValueError for what `hash_row` cannot hold."""
    chain_id, event_id = str(uuid.UUID(chain_id)), str(uuid.UUID(event_id))
    commitment = commit(salt, payload)
    seq = head.seq + 1
    return ChainedEvent(
        chain_id=chain_id,
        seq=seq,
        event_id=event_id,
        kind=kind,
        time_us=time_us,
        received_us=received_us,
        payload=payload,
        salt=salt,
        prev_hash=head.row_hash,
        commitment=commitment,
        row_hash=hash_row(chain_id, seq, head.row_hash, time_us, kind, event_id, commitment),
    )


def broken_link(row: ChainedEvent, head: ChainHead) -> str | None:
    """Why `row` does not follow `head`, or None when it does."""
    if row.seq != head.seq + 1:
        return f"sequence {row.seq} does not follow {head.seq}"
    if row.prev_hash != head.row_hash:
        return f"sequence {row.seq}: previous hash differs from the row before"
    if not is_committed(row.commitment, row.salt, row.payload):
        return f"sequence {row.seq}: payload differs from its commitment"
    try:
        expected = hash_row(row.chain_id, row.seq, row.prev_hash, row.time_us, row.kind, row.event_id, row.commitment)
    except ValueError as error:
        return f"sequence {row.seq}: {error}"
    if row.row_hash != expected:
        return f"sequence {row.seq}: row hash differs from its content"
    return None
