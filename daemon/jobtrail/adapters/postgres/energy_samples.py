"""What runs had used at each look into `energy_samples`, with binary COPY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.samples import Record, copy_what_can_be
from jobtrail.adapters.postgres.values import from_millionths, to_datetime, to_seconds
from jobtrail.core.facts import Observer, SamplesDropped
from jobtrail.core.gpu.ports import EnergySampleRow

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

COLUMNS = (
    "sampled_at", "cluster_name", "job_id", "node", "opened_by", "gpu_joules", "cpu_joules", "dram_joules",
    "covered_seconds", "gpu_method", "gpu_ids", "shared_gpu_ids", "board_ids",
    "emission_factor_grams_per_kwh", "emission_factor_year", "emission_factor_source", "pue",
)  # fmt: skip


class PostgresEnergySamples:
    """An EnergySampleSink on a PostgreSQL pool. A batch cut off at its very end may come twice, which changes no
    difference between two samples.
    """

    def __init__(self, pool: Pool, *, timeout_seconds: float, tell: Observer) -> None:
        self._pool = pool
        self._timeout = timeout_seconds
        self._tell = tell

    async def write_energy(self, rows: Sequence[EnergySampleRow]) -> int:
        """Store `rows`. Raises StoreUnavailable.

        Rows of days that have no partition any more, and rows with a value its column cannot hold, are dropped,
        counted; the others are stored.
        """
        records = [_record(row) for row in rows]
        async with session(self._pool, self._timeout) as connection:
            dropped = await copy_what_can_be(connection, "energy_samples", COLUMNS, records)
        if dropped:
            self._tell(SamplesDropped(rows=dropped))
        return len(rows) - dropped


def _record(row: EnergySampleRow) -> Record:
    sample, factor = row.sample, row.factor
    known = (None, None, None) if factor is None else (factor.grams_per_kwh, factor.year, factor.source)
    return (
        to_datetime(sample.time_us), row.cluster, row.job_id, sample.node, row.ref,
        from_millionths(sample.gpu_microjoules), from_millionths(sample.cpu_microjoules),
        from_millionths(sample.dram_microjoules), to_seconds(sample.covered_us), sample.gpu_method,
        row.gpu_ids, row.shared_gpu_ids, row.board_ids or None,
        *known, row.pue,
    )  # fmt: skip
