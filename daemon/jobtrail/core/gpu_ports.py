"""Ports for readings of GPUs, apart from core.ports for its size alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from jobtrail.domain.gpus import GpuReading


class GpuSampleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of one GPU, with the run that held it; None where no run or several held it."""

    node: str
    reading: GpuReading
    cluster: str | None = None
    job_id: str | None = None
    ref: str | None = None  # event that opened the run on this node


class GpuSampleSink(Protocol):
    """Where readings of GPUs are kept for a while."""

    async def write_gpus(self, rows: Sequence[GpuSampleRow]) -> None:
        """Store `rows`. Raises StoreUnavailable."""
        ...
