"""Rows of table `events`: stored, read, and judged."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

from jobtrail.domain.audit import ZERO_HASH, ChainedEvent, ChainHead, broken_link

COLUMNS = "seq, event_id, chain_id, kind, time_us, received_us, payload, salt, prev_hash, commitment, row_hash"
_TYPES = (int, bytes, bytes, str, int, int, bytes, bytes, bytes, bytes, bytes)
_FIXED_LENGTHS = ((1, 16), (2, 16), (7, 32), (8, 32), (9, 32), (10, 32))
_AFTER = f"SELECT {COLUMNS} FROM events WHERE seq > ? ORDER BY seq"  # noqa: S608
_ONE = f"SELECT {COLUMNS} FROM events WHERE seq = ?"  # noqa: S608


def insert(connection: sqlite3.Connection, row: ChainedEvent, digest: bytes) -> None:
    """Hold `row`; `digest` is of what was sent."""
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.seq,
            uuid.UUID(row.event_id).bytes,
            uuid.UUID(row.chain_id).bytes,
            row.kind,
            row.time_us,
            row.received_us,
            digest,
            row.payload,
            row.salt,
            row.prev_hash,
            row.commitment,
            row.row_hash,
        ),
    )


def after(connection: sqlite3.Connection, seq: int) -> Iterator[ChainedEvent | None]:
    """The rows after `seq` in order; None in the place of a row that is not one."""
    for values in connection.execute(_AFTER, (seq,)):
        yield _row(values)


def one(connection: sqlite3.Connection, seq: int) -> ChainedEvent | None:
    """Row `seq`, or None where there is none or it is not one."""
    values = connection.execute(_ONE, (seq,)).fetchone()
    return None if values is None else _row(values)


def intact(row: ChainedEvent) -> bool:
    """Whether the row is what its own hashes say, whatever the rows around it."""
    return broken_link(row, ChainHead(row.seq - 1, row.prev_hash)) is None


def find_break(connection: sqlite3.Connection, chain_id: str, head: ChainHead, purged_seq: int) -> str | None:
    """Why the rows held are not the end of chain `chain_id` up to `head`, or None when they are.

    Reads every row: a flipped bit inside a value is invisible to PRAGMA quick_check.
    """
    before: ChainHead | None = None
    for row in after(connection, 0):
        if row is None or row.chain_id != chain_id:
            return f"the row after sequence {before.seq if before else 0} is no event of this chain"
        if before is None:
            if row.seq != purged_seq + 1:
                return f"the first event is number {row.seq} where {purged_seq + 1} belongs"
            before = ChainHead(row.seq - 1, ZERO_HASH if row.seq == 1 else row.prev_hash)
        if (problem := broken_link(row, before)) is not None:
            return problem
        before = ChainHead(row.seq, row.row_hash)
    return None if before == head else f"the last row is not the chain's head (sequence {head.seq})"


def _row(values: tuple[Any, ...]) -> ChainedEvent | None:
    if tuple(map(type, values)) != _TYPES or any(len(values[place]) != length for place, length in _FIXED_LENGTHS):
        return None
    if values[0] < 1 or values[4] < 0 or len(values[3]) > 64:
        return None
    return ChainedEvent(
        seq=values[0],
        event_id=str(uuid.UUID(bytes=values[1])),
        chain_id=str(uuid.UUID(bytes=values[2])),
        kind=values[3],
        time_us=values[4],
        received_us=values[5],
        payload=values[6],
        salt=values[7],
        prev_hash=values[8],
        commitment=values[9],
        row_hash=values[10],
    )
