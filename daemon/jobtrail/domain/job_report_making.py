"""Makes a report from the stored rows of a run: what was used of what there was, and who is least like the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from jobtrail.domain.advice import advise
from jobtrail.domain.efficiency import (
    OPEN_STATES,
    Row,
    active_seconds,
    between,
    cpu_use,
    measured_seconds,
    memory_use,
    ratio,
    source_of,
)
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
        cpu=_cpu(job, nodes),
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


def _time(job: Row, now: datetime) -> Time:
    end = now if job["state"] in OPEN_STATES else job["end_time"]
    ran, suspended = between(job["start_time"], end), job["suspended_seconds"]
    counted = active_seconds(ran, suspended)
    return Time(
        ran_seconds=ran,
        counted_seconds=counted,
        limit_seconds=job["time_limit_seconds"],
        ratio=ratio(counted, job["time_limit_seconds"]),
        waited_seconds=between(job["submit_time"], job["start_time"]),
        suspended_seconds=suspended,
    )


def _cpu(job: Row, nodes: Sequence[Row]) -> Cpu:
    use = cpu_use(job, nodes)
    return Cpu(
        used_seconds=job["cpu_seconds"],
        allocated_seconds=use.allocated_seconds,
        cpus=use.cpus,
        ratio=use.ratio,
        cores=use.cores,
        throttled_seconds=job["throttled_seconds"],
        source=source_of(job, "cpu"),
    )


def _memory(job: Row, nodes: Sequence[Row]) -> Memory:
    use = memory_use(job, nodes)
    return Memory(
        peak_bytes=use.peak_bytes,
        limit_bytes=use.limit_bytes,
        limit_of=use.limit_of,
        ratio=use.ratio,
        requested_bytes=job["memory_requested_bytes"],
        oom_kills=job["oom_kills"],
        source=source_of(job, "memory_peak"),
        file_cache="cgroup" in (source_of(job, "usage") or "") and source_of(job, "memory_peak") is None,
    )


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
    return tuple(
        _node_line(job, rows[name], limit) if name in rows else NodeLine(node=name, reported=False) for name in names
    )


def _node_line(job: Row, node: Row, limit: int | None) -> NodeLine:
    end = node["ended_at"] or (node["last_sample_at"] if job["state"] in OPEN_STATES else None)
    active = active_seconds(between(node["started_at"], end), job["suspended_seconds"])
    cpus, own_limit = node["cpus"], node["memory_limit_bytes"]
    return NodeLine(
        node=node["node"],
        reported=bool(node["sample_count"]),
        cpus=cpus,
        cpu_seconds=node["cpu_seconds"],
        cpu_ratio=ratio(node["cpu_seconds"], None if not cpus or active is None else cpus * active),
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
