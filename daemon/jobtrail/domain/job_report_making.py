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
    time = _time(job, now)
    memory = _memory(job)
    node_lines = _node_lines(job, nodes, memory.limit_bytes, now)
    gpu_lines = tuple(_gpu_line(gpu) for gpu in gpus)
    report = JobReport(
        **{name: job[name] for name in _SAME},
        sentence=sentence,
        is_over=job["state"] not in OPEN_STATES,
        node_names=tuple(job["nodes"] or (line.node for line in node_lines)),
        time=time,
        cpu=_cpu(job, time.ran_seconds),
        memory=memory,
        gpus=_gpus(job, time.ran_seconds),
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
    ran = _between(job["start_time"], end)
    return Time(
        ran_seconds=ran,
        limit_seconds=job["time_limit_seconds"],
        ratio=ratio(ran, job["time_limit_seconds"]),
        waited_seconds=_between(job["submit_time"], job["start_time"]),
        suspended_seconds=job["suspended_seconds"],
    )


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


def _cpu(job: Row, ran: float | None) -> Cpu:
    cpus, used = job["cpus_allocated"], job["cpu_seconds"]
    allocated = None if not cpus or not ran else cpus * ran
    return Cpu(
        used_seconds=used,
        allocated_seconds=allocated,
        cpus=cpus,
        ratio=ratio(used, allocated),
        cores=ratio(used, ran),
        throttled_seconds=job["throttled_seconds"],
        source=_source(job, "cpu"),
    )


def _source(job: Row, name: str) -> str | None:
    source: str | None = (job["usage_sources"] or {}).get(name)
    return source


def _memory(job: Row) -> Memory:
    """The limit is a node's cgroup's, else a node's share of what was asked for."""
    limit, requested, nodes = job["memory_limit_bytes"], job["memory_requested_bytes"], job["nodes_total"]
    if limit is None and requested is not None and nodes:
        limit = requested // nodes
    return Memory(
        peak_bytes=job["memory_peak_bytes"],
        limit_bytes=limit,
        ratio=ratio(job["memory_peak_bytes"], limit),
        requested_bytes=requested,
        oom_kills=job["oom_kills"],
        source=_source(job, "memory_peak"),
    )


def _gpus(job: Row, ran: float | None) -> Gpus:
    seen, count = job["gpu_seconds"], job["gpus_allocated"]
    covered = None if not count or not ran else ratio(seen, count * ran)
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


def _node_lines(job: Row, nodes: Sequence[Row], limit: int | None, now: datetime) -> tuple[NodeLine, ...]:
    """A line for each node, also for one that never reported."""
    rows = {node["node"]: node for node in nodes}
    names = [*rows, *(name for name in job["nodes"] or () if name not in rows)]
    end = now if job["state"] in OPEN_STATES else None
    return tuple(
        _node_line(rows[name], limit, end) if name in rows else NodeLine(node=name, reported=False) for name in names
    )


def _node_line(node: Row, limit: int | None, open_end: datetime | None) -> NodeLine:
    ran = _between(node["started_at"], node["ended_at"] or open_end)
    cpus = node["cpus"]
    return NodeLine(
        node=node["node"],
        reported=bool(node["sample_count"]),
        cpus=cpus,
        cpu_seconds=node["cpu_seconds"],
        cpu_ratio=ratio(node["cpu_seconds"], None if not cpus or ran is None else cpus * ran),
        memory_peak_bytes=node["memory_peak_bytes"],
        memory_ratio=ratio(node["memory_peak_bytes"], limit),
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
