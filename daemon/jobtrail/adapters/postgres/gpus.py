"""Readings of GPUs into `gpu_samples`, with binary COPY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.samples import Record, copy_what_can_be
from jobtrail.adapters.postgres.values import from_millionths, to_datetime
from jobtrail.core.facts import Observer, SamplesDropped
from jobtrail.core.gpu.ports import GpuSampleRow

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

CONVERTED = (
    "sampled_at", "node", "gpu_id", "vendor", "cluster_name", "job_id", "opened_by", "memory_total_bytes",
    "power_watts", "power_limit_watts", "energy_joules", "events", "processes", "absent",
)  # fmt: skip
# Values of a reading whose columns have their names and units.
SAME = (
    "utilization_percent", "memory_utilization_percent", "memory_used_bytes", "temperature_celsius",
    "memory_temperature_celsius", "sm_clock_hertz", "memory_clock_hertz", "throttle_reasons",
    "pcie_receive_bytes_per_second", "pcie_transmit_bytes_per_second", "nvlink_receive_bytes",
    "nvlink_transmit_bytes", "ecc_corrected", "ecc_uncorrected", "remapped_rows_corrected",
    "remapped_rows_uncorrected", "remapped_rows_pending", "sm_active_percent", "sm_occupancy_percent",
    "tensor_active_percent", "fp64_active_percent", "fp32_active_percent", "fp16_active_percent",
    "dram_active_percent",
)  # fmt: skip
COLUMNS = (*CONVERTED, *SAME)


class PostgresGpuSamples:
    """A GpuSampleSink on a PostgreSQL pool. As with job_samples, a batch cut off at its very end may come twice."""

    def __init__(self, pool: Pool, *, timeout_seconds: float, tell: Observer) -> None:
        self._pool = pool
        self._timeout = timeout_seconds
        self._tell = tell

    async def write_gpus(self, rows: Sequence[GpuSampleRow]) -> int:
        """Store `rows`. Raises StoreUnavailable.

        Rows of days that have no partition any more, and rows with a value its column cannot hold, are dropped,
        counted; the others are stored.
        """
        records = [_record(row) for row in rows]
        async with session(self._pool, self._timeout) as connection:
            dropped = await copy_what_can_be(connection, "gpu_samples", COLUMNS, records)
        if dropped:
            self._tell(SamplesDropped(rows=dropped))
        return len(rows) - dropped


def _record(row: GpuSampleRow) -> Record:
    reading = row.reading
    gpu = reading.gpu
    return (
        to_datetime(reading.time_us), row.node, gpu.gpu_id, gpu.vendor, row.cluster, row.job_id, row.ref,
        gpu.memory_total_bytes, _of_thousandths(reading.power_milliwatts),
        _of_thousandths(reading.power_limit_milliwatts), from_millionths(reading.energy_microjoules),
        _json(reading.events or None), _json(reading.processes), _json(reading.absent or None),
        *(getattr(reading, name) for name in SAME),
    )  # fmt: skip


def _of_thousandths(number: int | None) -> float | None:
    return None if number is None else number / 1e3


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
