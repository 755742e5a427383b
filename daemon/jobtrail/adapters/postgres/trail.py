"""Rows of the trail, handed to the database's own function: it alone may write them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.columns import job_row
from jobtrail.adapters.postgres.folding import Taken
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import encode, to_datetime
from jobtrail.domain.audit import ChainedEvent, ChainHead
from jobtrail.domain.errors import StoreRefused
from jobtrail.domain.events import Event, EventKind

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

COLUMNS = 23  # of `_record`, as trail_ingest.sql numbers them after chain and node


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What the database did with rows of one chain. `problem` says why a row did not link; it is on record there."""

    head: ChainHead
    stored: int
    replayed: int
    conflicts: tuple[int, ...]
    problem: str | None
    store_time_us: int  # the database's clock, just before or after it did


async def lock_chain(connection: Connection, chain_id: str, node: str) -> ChainHead:
    """Lock a chain until the end of the transaction, begun where there is none; where it ends."""
    return (await ingest(connection, chain_id, node, [])).head


async def ingest(connection: Connection, chain_id: str, node: str, rows: Sequence[Taken]) -> Ingested:
    """Store rows of one chain, each with the row of `jobs` after it. Raises StoreRefused for what no row can hold.

    The database checks every link and hash again, and compares what it holds already.
    """
    columns: list[list[Any]] = [list(column) for column in zip(*map(_record, rows), strict=True)]
    try:
        done = await connection.fetchrow(SQL["trail_ingest"], chain_id, node, *(columns or [[]] * COLUMNS))
    except (ValueError, TypeError, OverflowError) as error:  # asyncpg's encoders, before anything was sent
        raise StoreRefused(f"audit_log: {error}") from error
    assert done is not None
    return Ingested(
        head=ChainHead(done["head_seq"], done["head_hash"]),
        stored=done["stored"],
        replayed=done["replayed"],
        conflicts=tuple(done["conflicts"]),
        problem=done["problem"],
        store_time_us=done["store_time_us"],
    )


def as_it_is(row: ChainedEvent) -> Taken:
    """A row that is only compared, or put on record as one that does not link."""
    return Taken(row=row)


def _record(taken: Taken) -> tuple[Any, ...]:
    row, event, job = taken.row, taken.event, taken.run.job if taken.run else None
    _check_time(row.seq, row.time_us)
    _check_time(row.seq, row.received_us)
    return (
        row.seq, row.event_id, row.kind, row.time_us, row.received_us, row.payload, row.salt, row.prev_hash,
        row.commitment, row.row_hash,
        event and event.changed_by, event and event.source, None if job is None else _change(taken),
        event and event.cluster, event and (event.job_id or taken.job_id), job and job.run, event and event.node,
        job and job.correlation_id, taken.unapplied, _request_id(event),
        None if job is None else encode(job_row(job)), event and event.person, event and event.sent_by,
    )  # fmt: skip


def _change(taken: Taken) -> str:
    if taken.event is not None and taken.event.kind is EventKind.JOB_WITHDRAWN:
        return "delete"
    return "create" if taken.created else "update"


def _request_id(event: Event | None) -> uuid.UUID | None:
    """The id a request came with; None where it is none, as in an event that this program did not make."""
    try:
        return None if event is None or event.request_id is None else uuid.UUID(event.request_id)
    except ValueError:
        return None


def _check_time(seq: int, time_us: int) -> None:
    try:
        to_datetime(time_us)
    except OverflowError as error:
        raise StoreRefused(f"sequence {seq}: {time_us} µs since 1970 is no time a database can hold") from error
