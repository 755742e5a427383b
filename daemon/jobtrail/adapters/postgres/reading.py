"""Questions that the CLI and the API ask of the stored jobs and their trail."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.pool import session, transaction
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.timeline import read_timeline
from jobtrail.core.ports import Row
from jobtrail.core.query_ports import JobDetail, JobFilter, JobList
from jobtrail.domain.errors import InvalidEvent, NotFound
from jobtrail.domain.explain import explain
from jobtrail.domain.job import Job, NodeRun
from jobtrail.domain.job_ids import parse_job_id
from jobtrail.domain.job_report_timeline import Timeline

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

JSON_COLUMNS = frozenset({"verdict_evidence", "usage_sources", "usage_absent", "event", "job_snapshot", "errors"})


def public_job_id(text: str) -> str:
    """The job id as stored: a bare number is Slurm's, `123` means `slurm-123`."""
    return f"slurm-{text}" if text.isascii() and text.isdigit() else text


class PostgresReader:
    """Reads jobs and trail. Every method raises StoreUnavailable."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def list_jobs(self, wanted: JobFilter | None = None, *, limit: int = 50, offset: int = 0) -> JobList:
        """Runs that match, newest first."""
        conditions = msgspec.structs.astuple(wanted or JobFilter())
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["plan_for_values"])
            rows = await connection.fetch(SQL["jobs_list"], *conditions, limit, offset)
            total = await connection.fetchval(SQL["jobs_count"], *conditions)
        return JobList(jobs=[readable(row) for row in rows], total=total)

    async def show_job(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> JobDetail:
        """A run, the newest unless `run` names one. Raises NotFound."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            public_id = await _stored_id(connection, job_id, cluster)
            runs = await connection.fetch(SQL["job_show"], public_id, run, cluster)
            if not runs:
                gone = await connection.fetch(SQL["withdrawn_show"], public_id, run, cluster)
                raise NotFound(_withdrawn(gone[0]) if gone else _not_found(public_id, run, cluster))
            job = readable(runs[0])
            key = (job["cluster_name"], public_id, job["run"])
            nodes = await connection.fetch(SQL["job_nodes_show"], *key)
            gpus = await connection.fetch(SQL["job_gpus_show"], *key)
            benchmarks = await connection.fetch(SQL["job_benchmarks_show"], *key)
            efficiency = await connection.fetchrow(SQL["job_efficiency_show"], *key)
        others = [(other["cluster_name"], other["run"]) for other in runs[1:]]
        parts = [msgspec.json.decode(node["projection"], type=NodeRun) for node in nodes]
        return JobDetail(
            job=job,
            sentence=explain(msgspec.json.decode(runs[0]["projection"], type=Job), parts),
            efficiency=readable(efficiency),
            nodes=[_node(row, part) for row, part in zip(nodes, parts, strict=True)],
            gpus=[readable(gpu) for gpu in gpus],
            benchmarks=[{**readable(one), "run_uid": str(one["run_uid"])} for one in benchmarks],
            other_runs=others,
        )

    async def held_run(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> Job:
        """A run as it is held, also a withdrawn one; the newest unless `run` names one. Raises NotFound."""
        async with session(self._pool, self._timeout) as connection:
            public_id = await _stored_id(connection, job_id, cluster)
            for query in ("job_show", "withdrawn_show"):
                if runs := await connection.fetch(SQL[query], public_id, run, cluster):
                    return msgspec.json.decode(runs[0]["projection"], type=Job)
        raise NotFound(_not_found(public_id, run, cluster))

    async def job_timeline(self, detail: JobDetail, *, now: datetime) -> Timeline:
        """The time lines of a run; empty once its samples are kept no longer."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            return await read_timeline(connection, detail, now)

    async def audit_log(
        self, job_id: str, *, run: int | None = None, cluster: str | None = None, limit: int = 100
    ) -> list[Row]:
        """What happened to a job, oldest first; of more than `limit` events the newest. Rows of job_audit_events.

        Raises NotFound for a task of an array that is not stored.
        """
        async with session(self._pool, self._timeout) as connection:
            public_id = await _stored_id(connection, job_id, cluster)
            rows = await connection.fetch(SQL["trail_show"], public_id, run, cluster, limit)
        return [readable(row) for row in rows]

    async def count_states(self) -> Mapping[str, int]:
        """Runs in each state, all clusters together."""
        async with session(self._pool, self._timeout) as connection:
            return {row["state"]: row["jobs"] for row in await connection.fetch(SQL["states_count"])}


async def _stored_id(connection: Connection, text: str, cluster: str | None) -> str:
    """The id under which the job is stored that `text` names; a task of an array has its own. Raises NotFound."""
    try:
        named = parse_job_id(text)
    except InvalidEvent:
        return public_job_id(text)  # no job has it
    if named.array_task is None:
        return named.job_id
    found: str | None = await connection.fetchval(SQL["array_task_find"], named.job_id, named.array_task, cluster)
    if found is None:
        where = f" for cluster {cluster}" if cluster else ""
        raise NotFound(f"no task {named.array_task} of array {named.job_id} is stored{where}")
    return found


def _node(record: Any, part: NodeRun) -> Row:
    """A row of job_nodes with the limit of that node's cgroup, which the table has no column for."""
    return {**readable(record), "memory_limit_bytes": None if part.usage is None else part.usage.memory_limit_bytes}


def readable(record: Any) -> Row:
    """A row for people and programs: without what it was derived from."""
    return {name: _value(name, value) for name, value in record.items() if name != "projection"}


def _value(name: str, value: Any) -> Any:
    if name in JSON_COLUMNS and value is not None:
        return msgspec.json.decode(value)
    # asyncpg has a UUID class of its own, which JSON encoders do not know.
    return str(value) if isinstance(value, uuid.UUID) else value


def _not_found(job_id: str, run: int | None, cluster: str | None) -> str:
    which = f"run {run} of job {job_id}" if run is not None else f"job {job_id}"
    return f"no {which} is stored" + (f" for cluster {cluster}" if cluster else "")


def _withdrawn(row: Any) -> str:
    who = f" by {row['withdrawn_by']}" if row["withdrawn_by"] else ""
    return f"job {row['job_id']} was withdrawn at {row['withdrawn_at']:%Y-%m-%dT%H:%M:%SZ}{who}; its trail tells more"
