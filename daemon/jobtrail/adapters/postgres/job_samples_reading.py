"""Questions that people ask of the stored samples of a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.pool import transaction
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.ports import Row
from jobtrail.core.query_ports import JobSamples, SampleWindow

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

AROUND = timedelta(minutes=1)  # clocks of nodes and of Slurm's controller differ a little
JSON_COLUMNS = frozenset({"absent", "events", "processes"})
WHOLE = {"samples": SQL["samples_show"], "gpu_samples": SQL["gpu_samples_show"]}
STEPPED = {"samples": SQL["samples_by_step"], "gpu_samples": SQL["gpu_samples_by_step"]}


class PostgresSampleReader:
    """A SampleReader on a PostgreSQL pool."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def job_samples(self, job: Mapping[str, object], window: SampleWindow, *, now: datetime) -> JobSamples:
        """Samples of the run whose row of `jobs` this is, up to `now` if it goes on. Raises StoreUnavailable."""
        begin, end = _bounds(job, window, now)
        if begin is None or end is None:
            return JobSamples(start_time=None, end_time=None, samples=[], gpu_samples=[])
        key = (job["cluster_name"], job["job_id"])
        found: dict[str, list[Row]] = {}
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["plan_for_values"])
            openers = [row["ref"] for row in await connection.fetch(SQL["timeline_openers"], *key, job["run"])]
            for kind in WHOLE:
                found[kind] = await _rows(connection, kind, window, (*key, openers, begin, end))
        return JobSamples(
            start_time=begin,
            end_time=end,
            samples=found["samples"][: window.limit],
            gpu_samples=found["gpu_samples"][: window.limit],
            truncated=tuple(kind for kind, rows in found.items() if len(rows) > window.limit),
        )


def _bounds(job: Mapping[str, object], window: SampleWindow, now: datetime) -> tuple[datetime | None, datetime | None]:
    """From when to when; None for a run that did not start, of which there are no samples."""
    started, ended = job["start_time"], job["end_time"]
    if not isinstance(started, datetime):
        return None, None
    last = ended if isinstance(ended, datetime) else now
    return window.start_time or started - AROUND, window.end_time or last + AROUND


async def _rows(connection: Connection, kind: str, window: SampleWindow, where: tuple[Any, ...]) -> list[Row]:
    """One row more than the limit, if there are so many."""
    if window.step_seconds is None:
        records = await connection.fetch(WHOLE[kind], *where, window.limit + 1)
    else:
        records = await connection.fetch(STEPPED[kind], *where, window.limit + 1, window.step_seconds)
    return [{name: _value(name, value) for name, value in record.items()} for record in records]


def _value(name: str, value: Any) -> Any:
    # A step has a number of processes, a GPU's sample a list of them.
    return msgspec.json.decode(value) if name in JSON_COLUMNS and isinstance(value, str) else value
