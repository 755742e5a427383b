"""Makes a report from the stored rows of a run: what was used of what there was, and who is least like the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from jobtrail.domain.advice import advise
from jobtrail.domain.job_report import (
    Coverage,
    Cpu,
    Energy,
    GpuLine,
    Gpus,
    Io,
    JobReport,
    Memory,
    NodeLine,
    Time,
)
from jobtrail.domain.states import State
from jobtrail.domain.usage import SLURM_ACCOUNTING

Row = Mapping[str, Any]

OPEN_STATES = frozenset({State.PENDING, State.RUNNING})
UNEVEN_BY = 0.2  # of what there was: less says nothing, as some node always does a little more


def make_report(
    job: Row,
    *,
    sentence: str,
    nodes: Sequence[Row],
    gpus: Sequence[Row],
    other_runs: Sequence[tuple[str, int]],
    now: datetime,
) -> JobReport:
    """The report on a row of `jobs` with its rows of `job_nodes` and `job_gpus`; `now` ends a run that goes on."""
    time, measured = _time(job, now), measured_seconds(job)
    memory = _memory(job, nodes)
    node_lines = _node_lines(job, nodes, memory.limit_bytes)
    gpu_lines = tuple(_gpu_line(gpu) for gpu in gpus)
    report = JobReport(
        **{name: job[name] for name in _SAME},
        sentence=sentence,
        is_over=job["state"] not in OPEN_STATES,
        node_names=tuple(job["nodes"] or (line.node for line in node_lines)),
        time=time,
        cpu=_cpu(job, nodes, measured),
        memory=memory,
        gpus=_gpus(job, measured),
        io=Io(read_bytes=job["io_read_bytes"], written_bytes=job["io_write_bytes"]),
        energy=_energy(job),
        coverage=Coverage(
            ratio=job["coverage_ratio"],
            samples=job["sample_count"] or 0,
            nodes_reporting=job["nodes_reporting"] or 0,
            nodes_total=job["nodes_total"],
        ),
        nodes=node_lines if len(node_lines) > 1 else (),
        gpu_lines=gpu_lines,
        uneven=_uneven(node_lines, gpu_lines),
        other_runs=tuple((cluster, run) for cluster, run in other_runs),
        absent=job["usage_absent"] or {},
    )
    return msgspec.structs.replace(report, advice=advise(report))


_SAME = (
    "job_id", "cluster_name", "run", "state", "verdict", "job_name", "user_name", "account", "partition",
    "array_job_id", "array_task_id", "submit_time", "start_time", "start_inferred", "end_time", "end_inferred",
    "restart_count", "out_of_memory_step",
)  # fmt: skip


def ratio(part: float | None, whole: float | None) -> float | None:
    """How much of `whole` a part is; None where either is unknown or there is no whole."""
    return None if part is None or not whole else part / whole


def _time(job: Row, now: datetime) -> Time:
    end = now if job["state"] in OPEN_STATES else job["end_time"]
    ran, suspended = _between(job["start_time"], end), job["suspended_seconds"]
    counted = None if ran is None else max(0.0, ran - (suspended or 0.0))
    return Time(
        ran_seconds=ran,
        counted_seconds=counted,
        limit_seconds=job["time_limit_seconds"],
        ratio=ratio(counted, job["time_limit_seconds"]),
        waited_seconds=_between(job["submit_time"], job["start_time"]),
        suspended_seconds=suspended,
    )


def measured_seconds(job: Row) -> float | None:
    """The time that the usage is of. Of a run that goes on it is told minutes apart: up to the last sample in it."""
    return _between(job["start_time"], job["last_sample_at"] if job["state"] in OPEN_STATES else job["end_time"])


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


def _cpu(job: Row, nodes: Sequence[Row], measured: float | None) -> Cpu:
    cpus, used = _cpus_measured(job, nodes), job["cpu_seconds"]
    allocated = None if not cpus or not measured else cpus * measured
    return Cpu(
        used_seconds=used,
        allocated_seconds=allocated,
        cpus=cpus,
        ratio=ratio(used, allocated),
        cores=ratio(used, measured),
        throttled_seconds=job["throttled_seconds"],
        source=_source(job, "cpu"),
    )


def _cpus_measured(job: Row, nodes: Sequence[Row]) -> int | None:
    """The CPUs that the CPU time is of: those of the nodes that told, unless Slurm's accounting told of all."""
    reporting, total = job["nodes_reporting"], job["nodes_total"]
    everything: int | None = job["cpus_allocated"]
    if not reporting or total is None or reporting >= total or _source(job, "cpu") == SLURM_ACCOUNTING:
        return everything
    known = [node["cpus"] for node in nodes if node["sample_count"]]
    return sum(known) if known and None not in known else None


def _source(job: Row, name: str) -> str | None:
    source: str | None = (job["usage_sources"] or {}).get(name)
    return source


def _memory(job: Row, nodes: Sequence[Row]) -> Memory:
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
    return Memory(
        peak_bytes=peak,
        limit_bytes=limit,
        limit_of=None if node is None else node["node"],
        ratio=ratio(peak, limit),
        requested_bytes=requested,
        oom_kills=job["oom_kills"],
        source=_source(job, "memory_peak"),
        file_cache="cgroup" in (_source(job, "usage") or "") and _source(job, "memory_peak") is None,
    )


def _nearest_to_limit(nodes: Sequence[Row]) -> Row | None:
    """Of nodes whose limits differ, the one that used most of its own; None where they do not."""
    known = [node for node in nodes if node["memory_limit_bytes"] and node["memory_peak_bytes"] is not None]
    if len({node["memory_limit_bytes"] for node in known}) < 2:
        return None
    return max(known, key=lambda node: (node["memory_peak_bytes"] / node["memory_limit_bytes"], node["node"]))


def _gpus(job: Row, measured: float | None) -> Gpus:
    seen, count = job["gpu_seconds"], job["gpus_allocated"]
    covered = None if not count or not measured else ratio(seen, count * measured)
    return Gpus(
        allocated=count,
        observed_seconds=seen,
        busy_ratio=ratio(job["gpu_busy_seconds"], seen),
        unused_seconds=job["gpu_unused_seconds"],
        unused_ratio=ratio(job["gpu_unused_seconds"], seen),
        memory_peak_bytes=job["gpu_memory_peak_bytes"],
        coverage_ratio=None if covered is None else min(1.0, covered),
    )


def _energy(job: Row) -> Energy:
    return Energy(
        joules=job["energy_joules"],
        gpu_joules=job["energy_gpu_joules"],
        cpu_joules=job["energy_cpu_joules"],
        dram_joules=job["energy_dram_joules"],
        coverage_ratio=job["energy_coverage_ratio"],
        method=job["energy_method"],
        emissions_grams=job["emissions_grams"],
        factor_grams_per_kwh=job["emission_factor_grams_per_kwh"],
        factor_source=job["emission_factor_source"],
        factor_year=job["emission_factor_year"],
        pue=job["pue"],
    )


def _node_lines(job: Row, nodes: Sequence[Row], limit: int | None) -> tuple[NodeLine, ...]:
    """A line for each node, also for one that never reported."""
    rows = {node["node"]: node for node in nodes}
    names = [*rows, *(name for name in job["nodes"] or () if name not in rows)]
    is_open = job["state"] in OPEN_STATES
    return tuple(
        _node_line(rows[name], limit, is_open=is_open) if name in rows else NodeLine(node=name, reported=False)
        for name in names
    )


def _node_line(node: Row, limit: int | None, *, is_open: bool) -> NodeLine:
    measured = _between(node["started_at"], node["ended_at"] or (node["last_sample_at"] if is_open else None))
    cpus, own_limit = node["cpus"], node["memory_limit_bytes"]
    return NodeLine(
        node=node["node"],
        reported=bool(node["sample_count"]),
        cpus=cpus,
        cpu_seconds=node["cpu_seconds"],
        cpu_ratio=ratio(node["cpu_seconds"], None if not cpus or measured is None else cpus * measured),
        memory_peak_bytes=node["memory_peak_bytes"],
        memory_ratio=ratio(node["memory_peak_bytes"], limit if own_limit is None else own_limit),
        gpu_busy_ratio=ratio(node["gpu_busy_seconds"], node["gpu_seconds"]),
        joules=node["energy_joules"],
        coverage_ratio=node["coverage_ratio"],
    )


def _gpu_line(gpu: Row) -> GpuLine:
    seen = gpu["observed_seconds"]
    return GpuLine(
        node=gpu["node"],
        gpu_id=gpu["gpu_id"],
        name=gpu["name"],
        minor=gpu["minor"],
        observed_seconds=seen,
        busy_ratio=ratio(gpu["busy_seconds"], seen),
        unused_seconds=gpu["unused_seconds"],
        unused_ratio=ratio(gpu["unused_seconds"], seen),
        memory_peak_bytes=gpu["memory_peak_bytes"],
        memory_total_bytes=gpu["memory_total_bytes"],
        memory_ratio=ratio(gpu["memory_peak_bytes"], gpu["memory_total_bytes"]),
        joules=gpu["energy_joules"],
        errors=gpu["errors"] or {},
        found=gpu["resolved_by"] is not None,
        mismatch=gpu["attribution_mismatch"],
    )


def _uneven(nodes: Iterable[NodeLine], gpus: Iterable[GpuLine]) -> tuple[str, ...]:
    """Of nodes and GPUs, which is farthest from the mean, where that is far."""
    gpus = tuple(gpus)
    kinds = (
        ("CPU", "node", [(line.node, line.cpu_ratio) for line in nodes]),
        ("GPU", "GPU", [(f"{line.gpu_id} on {line.node}", line.busy_ratio) for line in gpus]),
    )
    return tuple(said for use, kind, shares in kinds if (said := _farthest(use, kind, shares)) is not None)


def _farthest(use: str, kind: str, shares: list[tuple[str, float | None]]) -> str | None:
    known = [(name, share) for name, share in shares if share is not None]
    if len(known) < 2:
        return None
    mean = sum(share for _, share in known) / len(known)
    name, share = max(known, key=lambda one: abs(one[1] - mean))
    if abs(share - mean) < UNEVEN_BY:
        return None
    return f"most uneven {kind}: {name}, {100 * share:.0f} % {use} where the mean is {100 * mean:.0f} %"
