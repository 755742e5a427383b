"""The stored runs that are settled and whose AdminComment is still to be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.reading import readable
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.ports import Row

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool


class PostgresSettledRuns:
    """A SettledRuns."""

    def __init__(self, pool: Pool, *, timeout_seconds: float, quiet_seconds: float) -> None:
        """`quiet_seconds`: how long nothing new was said of a run that is settled; a node's last word comes within
        seconds of the end."""
        self._pool = pool
        self._timeout = timeout_seconds
        self._quiet = quiet_seconds

    async def uncommented(
        self, cluster: str, *, since_seconds: float, limit: int, but_not: Sequence[tuple[str, int]]
    ) -> Sequence[Row]:
        """Runs that ended in so many seconds, are settled and have no comment on record, the longest over first.

        Raises StoreUnavailable.
        """
        ids, runs = [job_id for job_id, _ in but_not], [run for _, run in but_not]
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(
                SQL["runs_uncommented"], cluster, since_seconds, ids, runs, limit, self._quiet
            )
        return [readable(row) for row in rows]
