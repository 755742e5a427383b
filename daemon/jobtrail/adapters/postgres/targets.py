"""Which daemons there are to be scraped: Slurm's nodes, and whoever wrote to the trail of late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.target_ports import ScrapeTarget, TargetFilter

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool


class PostgresTargets:
    """A TargetReader on a PostgreSQL pool."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def targets(self, wanted: TargetFilter) -> Sequence[ScrapeTarget]:
        """All that match, by cluster and node. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL["scrape_targets"], wanted.cluster, wanted.partition)
        return [
            ScrapeTarget(
                node=row["node"],
                cluster=row["cluster_name"],
                state=row["state"],
                flags=tuple(row["state_flags"]),
                partitions=tuple(row["partitions"]),
            )
            for row in rows
        ]
