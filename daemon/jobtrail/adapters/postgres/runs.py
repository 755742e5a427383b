"""The stored runs that Slurm is still to be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.job import Job

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

_decode = msgspec.json.Decoder(Job).decode


class PostgresRuns:
    """A RunStore. Every method raises StoreUnavailable."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def unsettled(self, cluster: str, *, limit: int) -> Sequence[Job]:
        """Runs Slurm said nothing of yet and unconfirmed ends; then usage it may know better. Each newest first."""
        return await self._jobs("runs_unsettled", cluster, limit)

    async def open_runs(self, cluster: str, *, limit: int) -> Sequence[Job]:
        """All runs that are not over, newest first."""
        return await self._jobs("runs_open", cluster, limit)

    async def runs_of(self, cluster: str, job_ids: Sequence[str]) -> Sequence[Job]:
        """All runs of these jobs, oldest first."""
        return await self._jobs("runs_of_jobs", cluster, list(job_ids))

    async def only_cluster(self) -> str | None:
        """The one cluster of all runs of the last week that are not settled."""
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL["clusters_unsettled"])
        return rows[0]["cluster_name"] if len(rows) == 1 else None

    async def _jobs(self, query: str, *arguments: object) -> list[Job]:
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL[query], *arguments)
        return [_decode(row["projection"]) for row in rows]
