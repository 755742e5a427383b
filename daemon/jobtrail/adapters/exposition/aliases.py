"""The names that other exporters give to what is on the page, so that dashboards made for them go on working.

Off unless `metrics.aliases` names a tool. Names, labels and units are those tools' own: slurm-job-exporter's
(slurm-job-exporter.py), treydock's cgroup_exporter's (collector/collector.go), those of its fork that jobstats uses
(plazonic's cgroup_exporter.go), and dcgm-exporter's counters (etc/*.csv) with the label of its --hpc-job-mapping-dir.
What they tell and we do not read has no series; docs/migrating.md names it. Types are left open (untyped) where
Prometheus's rules for names refuse the tool's own: queries do not look at the type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from jobtrail.adapters.exposition.text import Family, Value, encode_values, header, label_set
from jobtrail.core.runs.board import Board, GpuDevice, JobEntry
from jobtrail.domain.gpus import GpuReading

Labels = tuple[tuple[str, str | None], ...]
Point = tuple[Labels, Value]
Read = Callable[[JobEntry], Iterable[Point]]
ReadGpu = Callable[[GpuReading], Iterable[Point]]
Kind = Literal["counter", "gauge", "untyped"]

JOB_LABELS = ("user", "account", "slurmjobid")
GPU_LABELS = (*JOB_LABELS, "gpu", "gpu_type")
DCGM_LABELS = (
    "gpu", "UUID", "pci_bus_id", "device", "modelName", "GPU_I_ID", "Hostname", "DCGM_FI_DRIVER_VERSION", "hpc_job",
)  # fmt: skip


def _one(value: Value, *labels: tuple[str, str]) -> tuple[Point, ...]:
    return ((labels, value),)


def _of_reading(name: str) -> Read:
    return lambda entry: _one(getattr(entry.reading, name, None))


def _of_usage(name: str, per: float = 1) -> Read:
    def read(entry: JobEntry) -> Iterable[Point]:
        value = getattr(entry.usage, name, None)
        return _one(None if value is None else value / per if per != 1 else value)

    return read


def _of_gpu(name: str, factor: float = 1, *labels: tuple[str, str]) -> ReadGpu:
    def read(reading: GpuReading) -> Iterable[Point]:
        return _one(_times(getattr(reading, name), factor), *labels)

    return read


def _both(*reads: ReadGpu) -> ReadGpu:
    return lambda reading: [point for read in reads for point in read(reading)]


def _times(value: Value, factor: float) -> Value:
    return value if value is None or factor == 1 else value * factor


def _rss_of_treydock(entry: JobEntry) -> Iterable[Point]:
    """On cgroup v2 that tool adds the page cache to it (collector/cgroupv2.go)."""
    reading = entry.reading
    rss = None if reading is None else reading.memory_rss_bytes
    if reading is None or rss is None or reading.source != "cgroup_v2":
        return _one(rss)
    cache = reading.memory_cache_bytes
    return _one(None if cache is None else rss + cache)


def _pressure(resource: str) -> Read:
    def read(entry: JobEntry) -> Iterator[Point]:
        for kind in ("some", "full"):
            value = getattr(entry.reading, f"pressure_{resource}_{kind}_us", None)
            yield (("type", kind),), None if value is None else value / 1e6

    return read


def _family(name: str, text: str, labels: Sequence[str], kind: Kind = "gauge") -> Family:
    return Family(name, kind, text, tuple(labels))


def _job_memory(what: str, text: str, read: Read) -> tuple[Family, Read]:
    return _family(f"slurm_job_memory_{what}", text, JOB_LABELS), read


SLURM_JOB_EXPORTER: tuple[tuple[Family, Read], ...] = (
    _job_memory("usage", "Memory used by the job, in bytes.", _of_reading("memory_current_bytes")),
    _job_memory("max", "Highest memory use of the job, in bytes.", _of_usage("memory_peak_bytes")),
    _job_memory("limit", "Memory limit of the job, in bytes.", _of_reading("memory_limit_bytes")),
    _job_memory("cache", "Page cache of the job, in bytes.", _of_reading("memory_cache_bytes")),
    _job_memory("rss", "Anonymous memory of the job, in bytes.", _of_reading("memory_rss_bytes")),
    # promtool takes a name that ends in _count for part of a histogram.
    (_family("slurm_job_process_count", "Processes of the job.", JOB_LABELS, "untyped"), _of_reading("processes")),
)
SLURM_JOB_EXPORTER_GPUS: tuple[tuple[Family, ReadGpu], ...] = tuple(
    (_family(f"slurm_job_{name}", text, labels), read)
    for name, text, labels, read in (
        ("memory_total_gpu", "Memory of the GPU, in bytes.", GPU_LABELS,
         lambda reading: _one(reading.gpu.memory_total_bytes)),
        ("memory_usage_gpu", "Memory in use on the GPU, in bytes.", GPU_LABELS, _of_gpu("memory_used_bytes")),
        ("power_gpu", "Power of the GPU, in mW.", GPU_LABELS, _of_gpu("power_milliwatts")),
        ("utilization_gpu", "Time in which any kernel ran, per cent.", GPU_LABELS, _of_gpu("utilization_percent")),
        ("utilization_gpu_memory", "Time in which memory was read or written, per cent.", GPU_LABELS,
         _of_gpu("memory_utilization_percent")),
        ("sm_occupancy_gpu", "Warps resident, per cent.", GPU_LABELS, _of_gpu("sm_occupancy_percent")),
        ("tensor_gpu", "Time in which tensor cores worked, per cent.", GPU_LABELS, _of_gpu("tensor_active_percent")),
        ("fp64_gpu", "Time in which FP64 units worked, per cent.", GPU_LABELS, _of_gpu("fp64_active_percent")),
        ("fp32_gpu", "Time in which FP32 units worked, per cent.", GPU_LABELS, _of_gpu("fp32_active_percent")),
        ("fp16_gpu", "Time in which FP16 units worked, per cent.", GPU_LABELS, _of_gpu("fp16_active_percent")),
        ("pcie_gpu", "PCIe, in bytes per second.", (*GPU_LABELS, "direction"), _both(
            _of_gpu("pcie_transmit_bytes_per_second", 1, ("direction", "TX")),
            _of_gpu("pcie_receive_bytes_per_second", 1, ("direction", "RX")))),
    )
)  # fmt: skip


def _cgroup_families(labels: tuple[str, ...], rss: Read) -> tuple[tuple[Family, Read], ...]:
    """What treydock's exporter and the fork have in common; their CPU times are counters without _total."""
    return (
        (_family("cgroup_cpu_user_seconds", "User CPU time.", labels, "untyped"), _of_usage("cpu_user_us", 1e6)),
        (_family("cgroup_cpu_system_seconds", "System CPU time.", labels, "untyped"), _of_usage("cpu_system_us", 1e6)),
        (_family("cgroup_cpu_total_seconds", "CPU time.", labels, "untyped"), _of_usage("cpu_usage_us", 1e6)),
        (_family("cgroup_cpus", "CPUs of the job.", labels), lambda entry: _one(entry.run.cpus)),
        (_family("cgroup_memory_rss_bytes", "Resident memory.", labels), rss),
        (_family("cgroup_memory_cache_bytes", "Page cache.", labels), _of_reading("memory_cache_bytes")),
        (_family("cgroup_memory_used_bytes", "Memory in use.", labels), _of_reading("memory_current_bytes")),
        (_family("cgroup_memory_total_bytes", "Memory limit.", labels), _of_reading("memory_limit_bytes")),
    )


CGROUP_EXPORTER: tuple[tuple[Family, Read], ...] = (
    *_cgroup_families(("cgroup",), _rss_of_treydock),
    *((_family(f"cgroup_{resource}_pressure_seconds_total", "Time stalled.", ("cgroup", "type"), "counter"),
       _pressure(resource)) for resource in ("cpu", "memory", "io")),
    (_family("cgroup_info", "What the cgroup is of: always 1.", ("cgroup", "username", "uid", "jobid")),
     lambda _: _one(1)),
)  # fmt: skip
JOBSTATS: tuple[tuple[Family, Read], ...] = (
    *_cgroup_families(("jobid", "step", "task"), _of_reading("memory_rss_bytes")),
    (_family("cgroup_uid", "Number of the job's user.", ("jobid",)), lambda entry: _one(entry.run.target.uid)),
)
_RATIO = 0.01


def _dcgm_family(name: str, text: str, column: str) -> Family:
    # A counter whose name does not end in _total is refused by promtool.
    return _family(name, text, DCGM_LABELS, "untyped" if column == "energy_microjoules" else "gauge")


DCGM_EXPORTER: tuple[tuple[Family, ReadGpu], ...] = tuple(
    (_dcgm_family(f"DCGM_FI_{name}", text, column), _of_gpu(column, factor))
    for name, text, column, factor in (
        ("DEV_SM_CLOCK", "Clock of the multiprocessors, in MHz.", "sm_clock_hertz", 1e-6),
        ("DEV_MEM_CLOCK", "Clock of the memory, in MHz.", "memory_clock_hertz", 1e-6),
        ("DEV_MEMORY_TEMP", "Temperature of the memory, in C.", "memory_temperature_celsius", 1),
        ("DEV_GPU_TEMP", "Temperature of the GPU, in C.", "temperature_celsius", 1),
        ("DEV_POWER_USAGE", "Power, in W.", "power_milliwatts", 1e-3),
        ("DEV_TOTAL_ENERGY_CONSUMPTION", "Energy since the driver was loaded, in mJ.", "energy_microjoules", 1e-3),
        ("DEV_GPU_UTIL", "Time in which any kernel ran, per cent.", "utilization_percent", 1),
        ("DEV_MEM_COPY_UTIL", "Time in which memory was read or written, per cent.", "memory_utilization_percent", 1),
        ("DEV_FB_USED", "Memory in use, in MiB.", "memory_used_bytes", 2**-20),
        ("PROF_SM_ACTIVE", "Multiprocessors with work, 0 to 1.", "sm_active_percent", _RATIO),
        ("PROF_SM_OCCUPANCY", "Warps resident, 0 to 1.", "sm_occupancy_percent", _RATIO),
        ("PROF_PIPE_TENSOR_ACTIVE", "Tensor cores at work, 0 to 1.", "tensor_active_percent", _RATIO),
        ("PROF_PIPE_FP64_ACTIVE", "FP64 units at work, 0 to 1.", "fp64_active_percent", _RATIO),
        ("PROF_PIPE_FP32_ACTIVE", "FP32 units at work, 0 to 1.", "fp32_active_percent", _RATIO),
        ("PROF_PIPE_FP16_ACTIVE", "FP16 units at work, 0 to 1.", "fp16_active_percent", _RATIO),
        ("PROF_DRAM_ACTIVE", "Bandwidth of memory in use, 0 to 1.", "dram_active_percent", _RATIO),
    )
)  # fmt: skip
ALIAS_FAMILIES: Mapping[str, tuple[Family, ...]] = {
    "slurm-job-exporter": tuple(family for family, _ in (*SLURM_JOB_EXPORTER, *SLURM_JOB_EXPORTER_GPUS)),
    "cgroup_exporter": tuple(family for family, _ in CGROUP_EXPORTER),
    "jobstats": tuple(family for family, _ in JOBSTATS),
    "dcgm-exporter": tuple(family for family, _ in DCGM_EXPORTER),
}


class Aliases:
    """Renders what the named tools would, from the same board; made anew with each scrape, for nobody needs it fast."""

    def __init__(self, tools: Iterable[str], *, node: str) -> None:
        self._tools = frozenset(tools)
        self._node = node

    def render(self, board: Board) -> Iterator[bytes]:
        """The text of each family that has a series; nothing where no tool is named."""
        if not self._tools:
            return
        newest = {(entry.run.target.job_id, entry.run.target.node): entry for entry in board.jobs.values()}
        jobs = list(newest.values())
        if "slurm-job-exporter" in self._tools:
            yield from _of_jobs(SLURM_JOB_EXPORTER, jobs, _slurm_job_labels)
            held = [(_slurm_gpu_labels(job, gpu.reading), gpu.reading) for job, gpu in _devices(jobs)]
            yield from _of_readings(SLURM_JOB_EXPORTER_GPUS, held)
        if "cgroup_exporter" in self._tools:
            read = [job for job in jobs if job.reading is not None]
            yield from _of_jobs(CGROUP_EXPORTER, read, _cgroup_labels)
        if "jobstats" in self._tools:
            yield from _of_jobs(JOBSTATS, jobs, _jobstats_labels)
        if "dcgm-exporter" in self._tools:
            yield from _of_readings(DCGM_EXPORTER, list(self._dcgm(board, jobs)))

    def _dcgm(self, board: Board, jobs: Sequence[JobEntry]) -> Iterator[tuple[dict[str, str | None], GpuReading]]:
        """Each job's GPUs with the job, and the others of the node without one."""
        shown = set()
        for job, gpu in _devices(jobs):
            shown.add(gpu.reading.gpu.gpu_id)
            yield self._dcgm_labels(gpu.reading, _number_of(job)), gpu.reading
        for free in board.gpus:
            if free.reading.gpu.vendor == "nvidia" and free.reading.gpu.gpu_id not in shown:
                yield self._dcgm_labels(free.reading, None), free.reading

    def _dcgm_labels(self, reading: GpuReading, job: str | None) -> dict[str, str | None]:
        gpu = reading.gpu
        return {
            "gpu": None if gpu.index is None else str(gpu.index),
            # Of an instance of a partitioned GPU, the board's and the instance's number.
            "UUID": gpu.parent_gpu_id or gpu.gpu_id,
            "pci_bus_id": gpu.pci_bus_id,
            "device": None if gpu.minor is None else f"nvidia{gpu.minor}",
            "modelName": gpu.name,
            "GPU_I_ID": None if gpu.gpu_instance is None else str(gpu.gpu_instance),
            "Hostname": self._node,
            "DCGM_FI_DRIVER_VERSION": gpu.driver_version,
            "hpc_job": job,
        }


def _devices(jobs: Iterable[JobEntry]) -> Iterator[tuple[JobEntry, GpuDevice]]:
    """The GPUs of NVIDIA's that jobs hold: those tools know no others."""
    for job in jobs:
        for device in job.gpus.devices if job.gpus is not None else ():
            if device.reading.gpu.vendor == "nvidia":
                yield job, device


def _number_of(entry: JobEntry) -> str:
    """The job's id as Slurm has it."""
    return entry.run.target.job_id.removeprefix("slurm-")


def _slurm_job_labels(entry: JobEntry) -> dict[str, str | None]:
    return {"user": entry.run.user_name, "account": entry.run.account, "slurmjobid": _number_of(entry)}


def _slurm_gpu_labels(entry: JobEntry, reading: GpuReading) -> dict[str, str | None]:
    gpu = reading.gpu
    # The exporter names an instance of a partitioned GPU by its UUID, a whole one by its number.
    number = gpu.gpu_id if gpu.parent_gpu_id is not None or gpu.index is None else str(gpu.index)
    return {**_slurm_job_labels(entry), "gpu": number, "gpu_type": gpu.name}


def _cgroup_labels(entry: JobEntry) -> dict[str, str | None]:
    """The cgroup's name as that exporter has it on a node with one slurmd."""
    target, number = entry.run.target, _number_of(entry)
    uid = None if target.uid is None else str(target.uid)
    is_v1 = entry.reading is not None and entry.reading.source == "cgroup_v1"
    path = f"/slurm/uid_{uid or 0}/job_{number}" if is_v1 else f"/system.slice/slurmstepd.scope/job_{number}"
    return {"cgroup": path, "username": entry.run.user_name, "uid": uid, "jobid": number}


def _jobstats_labels(entry: JobEntry) -> dict[str, str | None]:
    return {"jobid": _number_of(entry), "step": None, "task": None}


def _of_jobs(
    families: Sequence[tuple[Family, Read]],
    jobs: Sequence[JobEntry],
    labels: Callable[[JobEntry], Mapping[str, str | None]],
) -> Iterator[bytes]:
    told = [(labels(job), job) for job in jobs]
    for family, read in families:
        yield _text(family, ((of, point) for of, job in told for point in read(job)))


def _of_readings(
    families: Sequence[tuple[Family, ReadGpu]], held: Sequence[tuple[Mapping[str, str | None], GpuReading]]
) -> Iterator[bytes]:
    for family, read in families:
        yield _text(family, ((of, point) for of, reading in held for point in read(reading)))


def _text(family: Family, points: Iterable[tuple[Mapping[str, str | None], Point]]) -> bytes:
    """The family's lines, nothing without a value; a label that a tool always has is there, empty where unknown."""
    name = b"\n" + family.name.encode()
    lines = []
    for labels, (more, value) in points:
        if value is None or not math.isfinite(value):
            continue
        whole = {**labels, **dict(more)}
        text = label_set((label, whole[label]) for label in family.labels)
        lines.append(b"".join((name, text, b" ", encode_values(value))))
    return b"".join((header(family), *lines, b"\n")) if lines else b""
