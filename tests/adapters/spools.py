"""Spools for tests: opened in one line, filled, and read back as a judge would."""

import hashlib
import uuid
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from jobtrail.adapters.spool import SqliteSpool
from jobtrail.core.ports import EventSpool, Receipt
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, broken_link
from jobtrail.domain.events import Actor, Event, EventKind
from tests.fakes import FakeClock

T0 = FakeClock().time_us()
MIB = 1024 * 1024


def opened(directory: Path, **settings: Any) -> AbstractAsyncContextManager[SqliteSpool]:
    """The spool in `directory`, as the daemon of node n1 opens it."""
    usual: dict[str, Any] = {
        "node": "n1",
        "cluster": "c1",
        "max_bytes": 64 * MIB,
        "keep_forwarded_us": 10**12,
        "clock": FakeClock(),
    }
    return SqliteSpool.opened(directory, **(usual | settings))


def event(kind: EventKind = EventKind.JOB_STARTED, *, at: int = 0, job: int = 7, **more: Any) -> Event:
    """An event of a job on n1, `at` seconds after T0."""
    fields: dict[str, Any] = {
        "event_id": str(uuid.uuid4()),
        "time_us": T0 + at * 1_000_000,
        "cluster": "c1",
        "job_id": f"slurm-{job}",
        "node": "n1",
        "changed_by": Actor.SLURM_PROLOG,
        "source": "test",
    }
    return Event(kind=kind, **(fields | more))


async def add(spool: EventSpool, one: Event) -> Receipt:
    """Append an event whose digest follows from its id."""
    return await spool.append(one, hashlib.sha256(one.event_id.encode()).digest())


async def rows_after(spool: EventSpool, seq: int = 0) -> list[ChainedEvent]:
    """All rows after `seq`."""
    return list(await spool.read_after(seq, limit=10**6, max_bytes=1 << 40))


async def verified(spool: EventSpool) -> dict[str, ChainedEvent]:
    """The rows by event id, once every link from the chain's first row to its head was recomputed."""
    rows = await rows_after(spool)
    head = EMPTY_CHAIN
    for row in rows:
        assert broken_link(row, head) is None
        head = ChainHead(row.seq, row.row_hash)
    assert head.seq == spool.status().head_seq
    by_id = {row.event_id: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id
