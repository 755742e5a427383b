"""Rows of `audit_log` and `audit_payload`, written with COPY: no other way is as fast."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobtrail.adapters.postgres.columns import job_row
from jobtrail.adapters.postgres.folding import Taken
from jobtrail.adapters.postgres.pool import copy_rows
from jobtrail.adapters.postgres.values import encode, to_datetime
from jobtrail.domain.errors import StoreRefused
from jobtrail.domain.events import Event, EventKind

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

LOG_COLUMNS = (
    "chain_id", "seq", "event_id", "kind", "prev_hash", "commitment", "row_hash", "changed_at", "received_at",
    "changed_by", "source", "change_type", "cluster_name", "job_id", "run", "node", "correlation_id", "unapplied",
    "request_id",
)  # fmt: skip
PAYLOAD_COLUMNS = ("chain_id", "seq", "received_at", "payload", "salt", "job_snapshot", "person", "sent_by")


async def write_trail(connection: Connection, taken: Sequence[Taken]) -> None:
    """Append the events to the trail, each with the row of `jobs` after it."""
    received = [_time(one.row.seq, one.row.received_us) for one in taken]
    log = [_log_record(one, at) for one, at in zip(taken, received, strict=True)]
    payload = [_payload_record(one, at) for one, at in zip(taken, received, strict=True)]
    await copy_rows(connection, "audit_log", LOG_COLUMNS, log)
    await copy_rows(connection, "audit_payload", PAYLOAD_COLUMNS, payload)


def _log_record(taken: Taken, received_at: datetime) -> tuple[Any, ...]:
    row, event, job = taken.row, taken.event, taken.run.job if taken.run else None
    change = None if job is None else _change(taken)
    return (
        row.chain_id, row.seq, row.event_id, row.kind, row.prev_hash, row.commitment, row.row_hash,
        _time(row.seq, row.time_us), received_at,
        event and event.changed_by, event and event.source, change,
        event and event.cluster, event and (event.job_id or taken.job_id), job and job.run, event and event.node,
        job and job.correlation_id, taken.unapplied, _request_id(event),
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


def _payload_record(taken: Taken, received_at: datetime) -> tuple[Any, ...]:
    row, event = taken.row, taken.event
    snapshot = None if taken.run is None else encode(job_row(taken.run.job))
    said = (None, None) if event is None else (event.person, event.sent_by)
    return row.chain_id, row.seq, received_at, row.payload, row.salt, snapshot, *said


def _time(seq: int, time_us: int) -> datetime:
    try:
        at = to_datetime(time_us)
    except OverflowError as error:
        raise StoreRefused(f"sequence {seq}: {time_us} µs since 1970 is no time a database can hold") from error
    assert at is not None
    return at
