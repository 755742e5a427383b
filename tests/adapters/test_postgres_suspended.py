"""Which jobs Slurm has suspended, as the server asks for its page of metrics."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresStore, session
from jobtrail.domain.errors import StoreUnavailable

BEGIN = datetime(2026, 11, 21, 8, tzinfo=UTC)
INSERT = (
    "INSERT INTO jobs (cluster_name, job_id, run, correlation_id, projection, state, raw_state, start_time)"
    " VALUES ($1, $2, $3, gen_random_uuid(), '{}', $4, $5, $6)"
)


async def fill(pool: Any) -> None:
    rows = [
        ("c1", "slurm-1", 1, "running", "SUSPENDED", 1), ("c1", "slurm-2", 1, "running", "STOPPED", 2),
        ("c1", "slurm-3", 1, "running", "RUNNING", 3), ("c1", "slurm-4", 1, "cancelled", "SUSPENDED", 4),
        ("c1", "slurm-5", 1, "running", None, 5), ("c2", "slurm-1", 1, "running", "SUSPENDED", 6),
        ("c2", "slurm-1", 2, "running", "RUNNING", 7),
    ]  # fmt: skip
    async with session(pool, 10.0) as connection:
        for *key, hours in rows:
            await connection.execute(INSERT, *key, BEGIN + timedelta(hours=hours))


async def test_they_are_named_with_their_cluster_newest_first(pool: Any) -> None:
    await fill(pool)
    store = PostgresStore(pool, timeout_seconds=10.0)
    assert await store.suspended_jobs(most=10) == [("c2", "slurm-1"), ("c1", "slurm-2"), ("c1", "slurm-1")]
    assert await store.suspended_jobs(most=1) == [("c2", "slurm-1")]


async def test_a_database_that_is_away_is_told(pool: Any) -> None:
    await pool.close()
    with pytest.raises(StoreUnavailable):
        await PostgresStore(pool, timeout_seconds=10.0).suspended_jobs(most=1)
