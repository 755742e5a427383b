"""The central store of the trail and of the jobs derived from it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from jobtrail.adapters.postgres.anchors import anchor_of
from jobtrail.adapters.postgres.benchmark_folding import BenchmarkFolding, load_benchmarks, write_benchmarks
from jobtrail.adapters.postgres.columns import job_row, node_row, with_projection, withdrawn_row
from jobtrail.adapters.postgres.folding import Folding, JobKey, Offered, RunKey, Taken
from jobtrail.adapters.postgres.pool import session, transaction
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.trail import as_it_is, ingest, lock_chain
from jobtrail.adapters.postgres.usage_columns import gpu_rows
from jobtrail.adapters.postgres.values import Row, encode
from jobtrail.core.ports import StoreReport
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, broken_link
from jobtrail.domain.benchmarks.holding import is_about_benchmarks, job_of
from jobtrail.domain.errors import ChainGap, StoreRefused, StoreUnavailable
from jobtrail.domain.job import Job, NodeRun, Run

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

JOB_LOCK_CLASS = 19029
# Jobs share this many locks. One lock a job would overflow the server's lock table (64 × max_connections entries) when
# many nodes catch up at once; this many always fit.
JOB_LOCKS = 1024

_job_decoder = msgspec.json.Decoder(Job)
_node_decoder = msgspec.json.Decoder(NodeRun)


class PostgresSink:
    """An EventSink on a PostgreSQL pool; each batch is one transaction.

    The chain's row is locked first, so a chain has one writer at a time and cannot fork. Then the jobs, in one order
    for all writers, so that two nodes of a job cannot block each other for ever.
    """

    def __init__(self, pool: Pool, *, timeout_seconds: float = 10.0) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def head(self, chain_id: str) -> ChainHead:
        """The last row of this chain held here. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            found = await connection.fetchrow(SQL["chain_head"], chain_id)
        return EMPTY_CHAIN if found is None else ChainHead(found["head_seq"], found["head_hash"])

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        """Store a batch of one chain. Raises StoreUnavailable, ChainGap, StoreRefused.

        Events up to the held head are compared with what is held; a different one is put on record in
        `audit_conflict`. So is an event that does not link to the row before it: what precedes it is stored, and a
        batch that begins with it is refused.
        """
        chain_id = _one_chain(events)
        async with transaction(self._pool, self._timeout) as connection:
            head = await lock_chain(connection, chain_id, node)
            if events[0].seq > head.seq + 1:
                raise ChainGap(head.seq)
            replays = [row for row in events if row.seq <= head.seq]
            linked = _linked(head, events[len(replays) :])
            offender = events[len(replays) + len(linked) :][:1]
            taken = await _project(connection, linked, trail_only) if linked else []
            rows = [*map(as_it_is, replays), *taken, *map(as_it_is, offender)]
            done = await ingest(connection, chain_id, node, rows)
            if done.stored != len(linked):  # or the projection would hold what the trail does not
                raise StoreUnavailable(f"the database stored {done.stored} of {len(linked)} rows: {done.problem}")
            anchor = await anchor_of(connection, chain_id)
        if done.problem is not None and not linked and not replays:
            raise StoreRefused(done.problem)
        told = taken if trail_only is None else []
        return StoreReport(
            head=done.head,
            stored=done.stored,
            replayed=done.replayed,
            conflicts=done.conflicts,
            unapplied={one.row.seq: one.unapplied for one in told if one.unapplied is not None},
            anchor=anchor,
            store_time_us=done.store_time_us,
        )


def _one_chain(events: Sequence[ChainedEvent]) -> str:
    chains = {row.chain_id for row in events}
    if len(chains) != 1:
        raise StoreRefused(f"a batch holds events of exactly one chain, this one of {len(chains)}")
    return events[0].chain_id


def _linked(head: ChainHead, events: Sequence[ChainedEvent]) -> list[ChainedEvent]:
    """The events that follow `head` link by link."""
    good: list[ChainedEvent] = []
    for row in events:
        if broken_link(row, head) is not None:
            break
        good.append(row)
        head = ChainHead(row.seq, row.row_hash)
    return good


async def _project(connection: Connection, rows: Sequence[ChainedEvent], trail_only: str | None) -> list[Taken]:
    """Write the projection, unless only the trail may have the rows; what became of each."""
    offered = [Offered.of(row) for row in rows]
    if trail_only is not None:
        return [_refused(one, trail_only) for one in offered]
    folding = Folding(await _load_runs(connection, offered))
    benchmarks = await load_benchmarks(connection, [one.event for one in offered if one.event is not None])
    taken = [_take(one, folding, benchmarks) for one in offered]
    await write_projection(connection, folding.jobs, folding.nodes)
    await write_benchmarks(connection, benchmarks)
    return taken


def _refused(one: Offered, reason: str) -> Taken:
    """What becomes of an event that only the trail may hold."""
    job_id = None if one.event is None else job_of(one.event)
    unapplied = one.problem or (reason if one.changes_something else None)
    return Taken(row=one.row, event=one.event, job_id=job_id, unapplied=unapplied)


def _take(one: Offered, folding: Folding, benchmarks: BenchmarkFolding) -> Taken:
    """Apply an event where it belongs. Those about benchmarks neither begin nor change any run of a job."""
    if one.event is None or not is_about_benchmarks(one.event):
        return folding.take(one)
    reason, job_id = benchmarks.take(one.event)
    return Taken(row=one.row, event=one.event, job_id=job_id, unapplied=reason)


async def _load_runs(connection: Connection, offered: Sequence[Offered]) -> dict[JobKey, list[Run]]:
    """Lock the jobs of a batch and load their runs, each with the parts of the nodes that speak in the batch."""
    keys = sorted({key for one in offered if (key := one.job_key) is not None})
    if not keys:
        return {}
    numbers = sorted({zlib.crc32(f"{cluster}/{job_id}".encode()) % JOB_LOCKS for cluster, job_id in keys})
    await connection.execute(SQL["jobs_lock"], JOB_LOCK_CLASS, numbers)
    clusters, job_ids = [cluster for cluster, _ in keys], [job_id for _, job_id in keys]
    names = sorted({one.event.node for one in offered if one.event is not None})
    parts: dict[RunKey, dict[str, NodeRun]] = {}
    for row in await connection.fetch(SQL["run_nodes_load"], clusters, job_ids, names):
        part = _node_decoder.decode(row["projection"])
        parts.setdefault((row["cluster_name"], row["job_id"], row["run"]), {})[part.node] = part
    runs: dict[JobKey, list[Run]] = {}
    for row in await connection.fetch(SQL["runs_load"], clusters, job_ids):
        key = (row["cluster_name"], row["job_id"])
        run = Run(job=_job_decoder.decode(row["projection"]), nodes=parts.get((*key, row["run"]), {}))
        runs.setdefault(key, []).append(run)
    return runs


def withdrawn_rows(jobs: Iterable[Job]) -> list[Row]:
    """The rows of `jobs_withdrawn` of those that are withdrawn."""
    return [with_projection(withdrawn_row(job, job.withdrawn), job) for job in jobs if job.withdrawn is not None]


async def write_projection(
    connection: Connection, jobs: dict[RunKey, Job], nodes: dict[tuple[RunKey, str], NodeRun]
) -> None:
    """Write runs, their node parts and what these had of GPUs over what is held; what is withdrawn is set apart."""
    if rows := [with_projection(job_row(job), job) for job in jobs.values() if job.withdrawn is None]:
        await connection.execute(SQL["jobs_write"], encode(rows))
    if rows := withdrawn_rows(jobs.values()):
        await connection.execute(SQL["jobs_withdraw"], encode(rows))
    if nodes:
        rows = [with_projection(node_row(jobs[key], part), part) for (key, _), part in nodes.items()]
        await connection.execute(SQL["job_nodes_write"], encode(rows))
    gpus = [row for (key, _), part in nodes.items() for row in gpu_rows(jobs[key], part)]
    if gpus:
        await connection.execute(SQL["job_gpus_write"], encode(gpus))
