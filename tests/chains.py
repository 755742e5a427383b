"""Builds chains of events for tests, as a node's spool would."""

import uuid
from collections.abc import Sequence
from typing import Any

from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, link
from jobtrail.domain.claims import Claims
from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage, encode
from jobtrail.domain.job_facts import JobFacts, Outcome

T0 = 1_760_000_000_000_000  # 2025-10-09T08:53:20Z in µs
SECOND = 1_000_000


class ChainWriter:
    """One node's chain. Each method makes the next event; `rows` holds all of them."""

    def __init__(self, node: str = "n1", cluster: str = "c1", chain_id: str | None = None) -> None:
        self.node, self.cluster = node, cluster
        self.chain_id = chain_id or str(uuid.uuid4())
        self.rows: list[ChainedEvent] = []

    @property
    def head(self) -> ChainHead:
        return ChainHead(self.rows[-1].seq, self.rows[-1].row_hash) if self.rows else EMPTY_CHAIN

    def raw(
        self, payload: bytes, *, kind: str = "job_started", at: int = 0, event_id: str | None = None
    ) -> ChainedEvent:
        """Any bytes as the next row; `at` is µs after T0."""
        row = link(
            self.head,
            chain_id=self.chain_id,
            event_id=event_id or str(uuid.uuid4()),
            kind=kind,
            time_us=T0 + at,
            received_us=T0 + at + 1000,
            payload=payload,
            salt=uuid.uuid4().bytes * 2,
        )
        self.rows.append(row)
        return row

    def event(self, kind: EventKind, job_id: str | None, at: int, by: Actor = Actor.SLURM_PROLOG, **fields: Any) -> str:
        """An event as the next row; its id."""
        event_id = str(uuid.uuid4())
        event = Event(
            kind=kind,
            event_id=event_id,
            time_us=T0 + at,
            cluster=self.cluster,
            job_id=job_id,
            node=self.node,
            changed_by=by,
            **{"source": "test", **fields},
        )
        self.raw(encode(event), kind=kind, at=at, event_id=event_id)
        return event_id

    def begin(self) -> str:
        return self.event(EventKind.CHAIN_STARTED, None, 0, Actor.COLLECTOR)

    def started(
        self,
        job_id: str,
        at: int = 0,
        nodes: Sequence[str] | None = None,
        slurm_start_time: int | None = None,
        **facts: Any,
    ) -> str:
        known = JobFacts(user_name="ada", partition="p1", cpus=4, nodes=tuple(nodes or [self.node]), **facts)
        return self.event(EventKind.JOB_STARTED, job_id, at, facts=known, slurm_start_time=slurm_start_time)

    def used(self, job_id: str, at: int, usage: NodeUsage, **fields: Any) -> str:
        return self.event(EventKind.USAGE_RECORDED, job_id, at, Actor.COLLECTOR, usage=usage, **fields)

    def finished(self, job_id: str, at: int, exit_code: int | None = 0, **fields: Any) -> str:
        outcome = Outcome(exit_code=exit_code)
        return self.event(EventKind.JOB_FINISHED, job_id, at, Actor.SLURM_EPILOG, outcome=outcome, **fields)

    def said(self, kind: EventKind, at: int, job_id: str = "manual-a", **fields: Any) -> str:
        """A person's word; keyword arguments beside those of an event are claims."""
        more = {name: fields.pop(name) for name in ("run", "request_id", "sent_by") if name in fields}
        claims = Claims(**fields) if fields else None
        return self.event(kind, job_id, at, Actor.API, claims=claims, person="ada", **{"sent_by": "uid:7", **more})

    def whole_job(self, job_id: str, exit_code: int = 0) -> None:
        """Start, ten seconds of use, end."""
        opened_by = self.started(job_id)
        usage = NodeUsage(cpu_usage_us=30 * SECOND, memory_peak_bytes=1 << 30, sample_count=7, covered_us=9 * SECOND)
        self.finished(job_id, 10 * SECOND, exit_code, opened_by=opened_by)
        self.used(job_id, 10 * SECOND + 1, usage, opened_by=opened_by)
