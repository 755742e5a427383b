"""Partitions of samples and trail: made ahead of time, sample days dropped when they are old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.statements import SQL

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool


async def keep_partitions(
    pool: Pool, *, days_ahead: int, retention_days: int | None, timeout_seconds: float
) -> tuple[int, int]:
    """How many partitions were made and how many sample days dropped; `retention_days` None drops none.

    Raises StoreUnavailable, among other causes when readers hold a partition so long that it cannot be dropped now.
    """
    async with session(pool, timeout_seconds) as connection:
        row = await connection.fetchrow(SQL["partitions_keep"], days_ahead, retention_days)
    assert row is not None
    return row["created"], row["dropped"]
