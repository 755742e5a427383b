"""Ports for readings of GPUs, apart from core.ports for its size alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from jobtrail.domain.benchmarks.settling import EnergySample
from jobtrail.domain.emissions import EmissionFactor
from jobtrail.domain.events import Actor, Event
from jobtrail.domain.gpu_allocation import HookValues, hook_values
from jobtrail.domain.gpus import GpuReading
from jobtrail.domain.gres import GresConf


class GpuSampleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of one GPU, with the run that held it; None where no run or several held it."""

    node: str
    reading: GpuReading
    cluster: str | None = None
    job_id: str | None = None
    ref: str | None = None  # event that opened the run on this node


class GpuSampleSink(Protocol):
    """Where readings of GPUs are kept for a while."""

    async def write_gpus(self, rows: Sequence[GpuSampleRow]) -> int:
        """Store `rows`; how many were taken, the others being told as dropped. Raises StoreUnavailable."""
        ...


class EnergySampleRow(msgspec.Struct, frozen=True, kw_only=True):
    """What an open run had used so far on a node, and which of its GPUs it had alone; None is unknown."""

    cluster: str
    job_id: str
    ref: str  # event that opened the run on this node
    sample: EnergySample
    gpu_ids: tuple[str, ...] | None = None
    shared_gpu_ids: tuple[str, ...] | None = None  # of gpu_ids, those that other runs held or used too
    board_ids: tuple[str, ...] = ()  # boards of instances among gpu_ids
    factor: EmissionFactor | None = None  # what emissions are worked out with on this node
    pue: float | None = None


class EnergySampleSink(Protocol):
    """Where energy samples are kept for a while."""

    async def write_energy(self, rows: Sequence[EnergySampleRow]) -> int:
        """Store `rows`; how many were taken, the others being told as dropped. Raises StoreUnavailable."""
        ...


def gpu_hook_of(event: Event) -> HookValues | None:
    """What a start tells of the run's GPUs: the prolog's variables, or what another sender named.

    None where nobody said.
    """
    if event.changed_by is Actor.SLURM_PROLOG and event.environment:
        return hook_values(event.environment)
    named = None if event.facts is None else event.facts.gpu_devices
    return None if named is None else HookValues(slurm_job_gpus=",".join(named) or None)


class ProcessPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process stands. `cgroups` are paths below their hierarchies, `ancestors` pids from itself upwards."""

    cgroups: tuple[str, ...] = ()
    ancestors: tuple[int, ...] = ()


class ProcessPlaces(Protocol):
    """Finds where processes stand. Blocking: called in a worker thread."""

    def places_of(self, pids: Iterable[int]) -> dict[int, ProcessPlace]:
        """Those of `pids` that run and may be looked at."""
        ...


class GresReader(Protocol):
    """Reads what Slurm's files say of a node's GPUs. Blocking: called in a worker thread."""

    def __call__(self, node: str, slurm_conf: str, /) -> GresConf:
        """By the node's name in Slurm, and the SLURM_CONF of its hooks (empty: the usual places). Raises nothing."""
        ...
