"""Readings into `job_samples`, with binary COPY."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from jobtrail.adapters.postgres.pool import REFUSALS, copy_rows, session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import to_datetime, to_seconds
from jobtrail.core.facts import Observer, SamplesDropped
from jobtrail.core.ports import SampleRow
from jobtrail.domain.errors import StoreRefused

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

COLUMNS = (
    "sampled_at", "cluster_name", "job_id", "node", "opened_by", "source", "cpu_percent",
    "cpu_seconds", "cpu_user_seconds", "cpu_system_seconds", "cpu_throttled_periods", "cpu_throttled_seconds",
    "memory_current_bytes", "memory_peak_bytes", "memory_limit_bytes", "memory_rss_bytes", "memory_cache_bytes",
    "memory_shmem_bytes", "oom_kills", "io_read_bytes", "io_write_bytes", "processes", "threads",
    "pressure_cpu_some_seconds", "pressure_cpu_full_seconds", "pressure_memory_some_seconds",
    "pressure_memory_full_seconds", "pressure_io_some_seconds", "pressure_io_full_seconds", "absent",
)  # fmt: skip
Record = tuple[Any, ...]
REFUSED = (StoreRefused, *REFUSALS)


class PostgresSamples:
    """A SampleSink on a PostgreSQL pool.

    A batch whose COPY was cut off at its very end may be written twice: a sample has no key, and the same reading
    twice changes no maximum, no counter's growth and no average by much.
    """

    def __init__(self, pool: Pool, *, timeout_seconds: float, tell: Observer) -> None:
        self._pool = pool
        self._timeout = timeout_seconds
        self._tell = tell

    async def write(self, rows: Sequence[SampleRow]) -> int:
        """Store `rows`; those of days that have no partition any more are dropped, counted. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            dropped = await copy_by_day(connection, "job_samples", COLUMNS, [_record(row) for row in rows])
        if dropped:
            self._tell(SamplesDropped(rows=dropped))
        return len(rows) - dropped

    async def days(self) -> frozenset[date]:
        """The days (UTC) of which samples can be kept now; today's and tomorrow's are made. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            return frozenset(await _days(connection, "job_samples"))


async def copy_by_day(connection: Connection, table: str, columns: Sequence[str], records: list[Record]) -> int:
    """Append records, of which the first value is the time, to a table with a partition a day.

    Records of days that have no partition any more are dropped; how many. Raises StoreRefused for a value its column
    cannot hold, and then stores none.
    """
    try:
        await copy_rows(connection, table, columns, records)
    except asyncpg.CheckViolationError:  # no partition for some row (SQLSTATE 23514)
        kept = await _storable(connection, table, records)
        await copy_rows(connection, table, columns, kept)
        return len(records) - len(kept)
    return 0


async def copy_what_can_be(connection: Connection, table: str, columns: Sequence[str], records: list[Record]) -> int:
    """As copy_by_day, but a record with a value its column cannot hold is dropped alone; how many were dropped.

    A refused batch is halved until what is refused stands alone: few COPYs for few records.
    """
    try:
        return await copy_by_day(connection, table, columns, records)
    except REFUSED:
        if len(records) == 1:
            return 1
    middle = len(records) // 2
    dropped = await copy_what_can_be(connection, table, columns, records[:middle])
    return dropped + await copy_what_can_be(connection, table, columns, records[middle:])


async def _days(connection: Connection, table: str) -> set[date]:
    await connection.fetchrow(SQL["partitions_keep"], 1, None)
    return {row["day"] for row in await connection.fetch(SQL["sample_days"], table)}


async def _storable(connection: Connection, table: str, records: list[Record]) -> list[Record]:
    """Make today's partitions if they are missing; the records that have one now."""
    days = await _days(connection, table)
    return [record for record in records if isinstance(record[0], datetime) and record[0].date() in days]


def _record(row: SampleRow) -> Record:
    reading = row.reading
    return (
        to_datetime(reading.time_us), row.cluster, row.job_id, row.node, row.ref, reading.source, row.cpu_percent,
        to_seconds(reading.cpu_usage_us), to_seconds(reading.cpu_user_us), to_seconds(reading.cpu_system_us),
        reading.cpu_throttled_periods, to_seconds(reading.cpu_throttled_us),
        reading.memory_current_bytes, reading.memory_peak_bytes, reading.memory_limit_bytes,
        reading.memory_rss_bytes, reading.memory_cache_bytes, reading.memory_shmem_bytes,
        reading.oom_kills, reading.io_read_bytes, reading.io_write_bytes, reading.processes, reading.threads,
        to_seconds(reading.pressure_cpu_some_us), to_seconds(reading.pressure_cpu_full_us),
        to_seconds(reading.pressure_memory_some_us), to_seconds(reading.pressure_memory_full_us),
        to_seconds(reading.pressure_io_some_us), to_seconds(reading.pressure_io_full_us),
        msgspec.json.encode(reading.absent).decode() if reading.absent else None,
    )  # fmt: skip
