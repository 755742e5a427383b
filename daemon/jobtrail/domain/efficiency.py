"""What a run used of the CPUs and the memory it had: one definition for the report, `jobs show` and the AdminComment.

The view `job_efficiency` and the analytics say the same in SQL; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from jobtrail.domain.states import State
from jobtrail.domain.usage import SLURM_ACCOUNTING

Row = Mapping[str, Any]

OPEN_STATES = frozenset({State.PENDING, State.RUNNING})
MOST_BYTES = 2**63 - 1  # that a kernel, and a column of the database, can count


class CpuUse(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time in seconds: used, and what the run could have used. None is not known."""

    cpus: int | None = None  # those that the CPU time is of
    allocated_seconds: float | None = None
    ratio: float | None = None
    cores: float | None = None  # busy on the mean


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """The peak of a node, and what it might use at most. None is not known."""

    peak_bytes: int | None = None
    limit_bytes: int | None = None
    limit_of: str | None = None  # the node of both, where nodes have different limits
    ratio: float | None = None


def ratio(part: float | None, whole: float | None) -> float | None:
    """How much of `whole` a part is; None where either is unknown or there is no whole."""
    return None if part is None or not whole else part / whole


def between(begin: datetime | None, end: datetime | None) -> float | None:
    """Seconds from one moment to another, never less than 0."""
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


def measured_seconds(job: Row) -> float | None:
    """The time that the usage is of. Of a run that goes on it is told minutes apart: up to the last sample in it."""
    return between(job["start_time"], job["last_sample_at"] if job["state"] in OPEN_STATES else job["end_time"])


def active_seconds(seconds: float | None, suspended: float | None) -> float | None:
    """Of a time, that in which the run could use its CPUs: not while it was suspended, as far as Slurm has told.

    Of a suspended job the processes are stopped on all nodes at once, and its CPUs are released for other jobs
    (squeue(1), job state SUSPENDED), so the same holds for each node. What Slurm has not told is not taken off.
    """
    return None if seconds is None else max(0.0, seconds - (suspended or 0.0))


def cpu_use(job: Row, nodes: Sequence[Row]) -> CpuUse:
    """CPU time of a row of `jobs`, of what its CPUs could have given while it was not suspended."""
    cpus, used = _cpus_measured(job, nodes), job["cpu_seconds"]
    active = active_seconds(measured_seconds(job), job["suspended_seconds"])
    allocated = None if not cpus or not active else cpus * active
    return CpuUse(cpus=cpus, allocated_seconds=allocated, ratio=ratio(used, allocated), cores=ratio(used, active))


def _cpus_measured(job: Row, nodes: Sequence[Row]) -> int | None:
    """The CPUs that the CPU time is of: those of the nodes that told, unless Slurm's accounting told of all."""
    reporting, total = job["nodes_reporting"], job["nodes_total"]
    everything: int | None = job["cpus_allocated"]
    if not reporting or total is None or reporting >= total or source_of(job, "cpu") == SLURM_ACCOUNTING:
        return everything
    known = [node["cpus"] for node in nodes if node["sample_count"]]
    return sum(known) if known and None not in known else None


def source_of(job: Row, name: str) -> str | None:
    """Where a value of the usage comes from, where that is not what is usual."""
    source: str | None = (job["usage_sources"] or {}).get(name)
    return source


def memory_use(job: Row, nodes: Sequence[Row]) -> MemoryUse:
    """The limit is a node's cgroup's, else a node's share of what was asked for.

    Where nodes have different ones, as with --mem-per-cpu, the peak and the limit are those of the node that came
    nearest to its own: one node's peak against another's limit says nothing.
    """
    peak, limit, requested = job["memory_peak_bytes"], job["memory_limit_bytes"], job["memory_requested_bytes"]
    if limit is None and requested is not None and job["nodes_total"]:
        limit = requested // job["nodes_total"]
    node = _nearest_to_limit(nodes)
    if node is not None:
        peak, limit = node["memory_peak_bytes"], node["memory_limit_bytes"]
    name = None if node is None else node["node"]
    return MemoryUse(peak_bytes=peak, limit_bytes=limit, limit_of=name, ratio=ratio(peak, limit))


def _nearest_to_limit(nodes: Sequence[Row]) -> Row | None:
    """Of nodes whose limits differ, the one that used most of its own; None where they do not."""
    known = [
        node
        for node in nodes
        if 0 < (node["memory_limit_bytes"] or 0) <= MOST_BYTES and node["memory_peak_bytes"] is not None
    ]
    if len({node["memory_limit_bytes"] for node in known}) < 2:
        return None
    return max(known, key=lambda node: (node["memory_peak_bytes"] / node["memory_limit_bytes"], node["node"]))
