"""An HttpApi in front of a real database that holds a few jobs of two users."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jobtrail.adapters.postgres import (
    PostgresAnalytics,
    PostgresReader,
    PostgresSampleReader,
    PostgresSink,
    PostgresTrailReader,
    session,
)
from jobtrail.core.query_ports import Archive
from jobtrail.domain.events import Event, NodeUsage, decode
from tests.adapters.test_http_senders import SLURM_UID, STRANGER_UID
from tests.adapters.test_http_tokens import TOKEN, write
from tests.chains import SECOND, ChainWriter
from tests.served_api import Answer, Served, served

OTHER_UID = STRANGER_UID + 7
MINUTE = 60 * SECOND
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def stories() -> list[ChainWriter]:
    """Jobs 1 to 4 a minute apart, the odd ones of STRANGER_UID; 4 goes on. Each other used 3 of 4 CPUs for 10 s."""
    writer = ChainWriter("n1")
    for number in range(1, 5):
        uid = STRANGER_UID if number % 2 else OTHER_UID
        opened_by = writer.started(
            f"slurm-{number}",
            number * MINUTE,
            uid=uid,
            account="odd" if number % 2 else "even",
            job_name=f"=job {number}",
        )
        if number < 4:
            usage = NodeUsage(
                cpu_usage_us=30 * SECOND, memory_peak_bytes=number << 20, sample_count=3, covered_us=9 * SECOND
            )
            writer.finished(f"slurm-{number}", number * MINUTE + 10 * SECOND, number % 2, opened_by=opened_by)
            writer.used(f"slurm-{number}", number * MINUTE + 10 * SECOND + 1, usage, opened_by=opened_by)
    return [writer]


def opener(writer: ChainWriter, job_id: str) -> str:
    """The event that began a job."""
    events: list[Event] = [decode(row.payload) for row in writer.rows]
    return next(event.event_id for event in events if event.job_id == job_id)


async def store(pool: Any, writers: list[ChainWriter]) -> None:
    for writer in writers:
        await PostgresSink(pool).store(writer.rows, node=writer.node)


def archive_of(pool: Any) -> Archive:
    return Archive(
        jobs=PostgresReader(pool, timeout_seconds=10.0),
        samples=PostgresSampleReader(pool, timeout_seconds=10.0),
        trail=PostgresTrailReader(pool, timeout_seconds=10.0),
        analytics=PostgresAnalytics(pool, timeout_seconds=10.0),
    )


@asynccontextmanager
async def served_from(pool: Any, directory: Path, **more: Any) -> AsyncIterator[Served]:
    """An API that answers from the database; Slurm's user is trusted and TCP needs the token."""
    file = directory / "read.token"
    write(file, TOKEN)
    async with served(
        directory, archive=archive_of(pool), trusted_uids=frozenset({SLURM_UID}), read_token_file=str(file), **more
    ) as api:
        yield api


async def get(api: Served, path: str, **headers: str) -> Answer:
    """Asked over TCP with the token."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.request("GET", path, headers={**BEARER, **named}, tcp=True)


async def add_samples(pool: Any, sql: str, *arguments: Any) -> None:
    """Rows of a table of samples of the day of the stories, whose partition is made."""
    async with session(pool, 10.0) as connection:
        for table in ("job_samples", "gpu_samples"):
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table}_20251009 PARTITION OF {table} "
                "FOR VALUES FROM ('2025-10-09 00:00+00') TO ('2025-10-10 00:00+00')"
            )
        await connection.execute(sql, *arguments)
