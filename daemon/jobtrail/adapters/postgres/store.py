"""What the server role asks of PostgreSQL beside events and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.retention import keep_partitions
from jobtrail.adapters.postgres.statements import SQL

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool


class PostgresStore:
    """A CentralStore on a PostgreSQL pool."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def keep_partitions(self, *, days_ahead: int, retention_days: int) -> tuple[int, int]:
        """Make partitions ahead, drop sample days past retention; how many of each. Raises StoreUnavailable."""
        return await keep_partitions(
            self._pool, days_ahead=days_ahead, retention_days=retention_days, timeout_seconds=self._timeout
        )

    async def count_states(self) -> Mapping[str, int]:
        """Runs now in each state, all clusters together. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            return {row["state"]: row["jobs"] for row in await connection.fetch(SQL["states_count"])}

    async def suspended_jobs(self, *, most: int) -> Sequence[tuple[str, str]]:
        """Cluster and id of jobs that Slurm last said were suspended or stopped, the newest first."""
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL["jobs_suspended"], most)
        return [(row["cluster_name"], row["job_id"]) for row in rows]
