"""Which jobs a node has a part in, and which cannot be its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.link.protocol import JobKey, PartOfJob
from jobtrail.domain.belonging import refused_until
from jobtrail.domain.job import Job

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

_decode = msgspec.json.Decoder(Job).decode


class PostgresJobParts:
    """A JobParts on a PostgreSQL pool: one query, however many jobs are asked about."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def parts(self, jobs: Sequence[JobKey], node: str) -> Mapping[JobKey, PartOfJob]:
        """What is known of the part of `node` in those of `jobs` that are held. Raises StoreUnavailable."""
        clusters, job_ids = [cluster for cluster, _ in jobs], [job_id for _, job_id in jobs]
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL["job_parts"], clusters, job_ids, node)
        runs: dict[JobKey, list[Job | None]] = {}
        for row in rows:
            job = None if row["has_part"] else _decode(row["projection"])
            runs.setdefault((row["cluster_name"], row["job_id"]), []).append(job)
        return {key: _part(held, node) for key, held in runs.items()}


def _part(runs: Sequence[Job | None], node: str) -> PartOfJob:
    """`runs`: None is one in which the node has a part."""
    without = [job for job in runs if job is not None]
    if len(without) < len(runs):
        return PartOfJob(has_part=True)
    return PartOfJob(refused_until_us=refused_until([(job, False) for job in without], node))
