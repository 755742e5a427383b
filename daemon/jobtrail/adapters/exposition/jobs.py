"""The per-job part of the page, made column by column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from jobtrail.adapters.exposition.text import Column, Family, Series, SeriesLines, header
from jobtrail.core.ports import OpenRun
from jobtrail.core.runs.board import JobEntry
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.samples import Reading

INFO_LABELS = ("job_id", "user", "account", "partition", "qos", "node", "cluster")
USER_LABELS = ("job_id", "user", "node")
JOB_LABELS = ("job_id", "node")


def _bytes(what: str, help_text: str) -> Family:
    return Family(f"hpc_job_memory_{what}_bytes", "gauge", help_text, JOB_LABELS, (Series(f"memory_{what}_bytes"),))


def _count(name: str, kind: Literal["counter", "gauge"], help_text: str, column: str) -> Family:
    return Family(f"hpc_job_{name}", kind, help_text, JOB_LABELS, (Series(column),))


JOB_FAMILIES: tuple[Family, ...] = (
    Family("hpc_job_info", "gauge", "What the job is: always 1, the labels tell.", INFO_LABELS, (Series("one"),)),
    Family("hpc_job_runtime_seconds", "gauge", "Wall time since the job's start on this node.", USER_LABELS,
           (Series("runtime_us", microseconds=True),)),
    Family("hpc_job_cpu_usage_percent", "gauge", "CPU used between the last two samples, per cent of the job's CPUs.",
           USER_LABELS, (Series("cpu_percent"),)),
    Family("hpc_job_memory_usage_bytes", "gauge", "Memory charged to the job at its last sample, page cache included.",
           USER_LABELS, (Series("memory_current_bytes"),)),
    Family("hpc_job_sample_age_seconds", "gauge", "Time since the job's last sample.", JOB_LABELS,
           (Series("sample_age_us", microseconds=True),)),
    Family("hpc_job_cpu_seconds_total", "counter", "CPU time used; the modes of a job add up to the whole.", JOB_LABELS,
           (Series("cpu_user_us", (("mode", "user"),), microseconds=True),
            Series("cpu_system_us", (("mode", "system"),), microseconds=True),
            Series("cpu_all_us", (("mode", "all"),), microseconds=True))),
    _count("cpus_allocated", "gauge", "CPUs allocated to the job on this node.", "cpus"),
    Family("hpc_job_cpu_throttled_seconds_total", "counter", "Time for which the CPU quota held the job back.",
           JOB_LABELS, (Series("cpu_throttled_us", microseconds=True),)),
    _bytes("peak", "Highest memory use seen: the kernel's own mark, else the highest sample."),
    _bytes("limit", "Memory limit of the job's cgroup."),
    _bytes("rss", "Anonymous memory at the last sample."),
    _bytes("cache", "Page cache at the last sample."),
    _bytes("shmem", "Shared memory and tmpfs at the last sample."),
    _count("oom_kills_total", "counter", "Processes the kernel killed for want of memory.", "oom_kills"),
    _count("io_read_bytes_total", "counter", "Bytes read from block devices.", "io_read_bytes"),
    _count("io_write_bytes_total", "counter", "Bytes written to block devices.", "io_write_bytes"),
    Family("hpc_job_pressure_seconds_total", "counter", "Time in which some or all tasks waited for a resource.",
           JOB_LABELS, tuple(
               Series(f"pressure_{resource}_{kind}_us", (("resource", resource), ("kind", kind)), microseconds=True)
               for resource in ("cpu", "memory", "io") for kind in ("some", "full"))),
    _count("processes", "gauge", "Processes at the last sample.", "processes"),
    _count("threads", "gauge", "Threads at the last sample.", "threads"),
    _count("gpus_allocated", "gauge", "GPUs allocated to the job on this node.", "gpus"),
)  # fmt: skip

_NOT_READ = Reading(time_us=0, source="")
_NOT_USED = NodeUsage()


class JobTable:
    """The per-job families of one set of jobs."""

    def __init__(self) -> None:
        self._refs: list[str] = []  # as on the board
        self._shown: list[str] = []
        self._fixed: dict[str, Column] = {}  # columns that no sample changes
        self._started_us: list[int] = []
        self._families = [(header(family), [SeriesLines(family, s) for s in family.series]) for family in JOB_FAMILIES]

    def render(self, jobs: Mapping[str, JobEntry], now_us: int) -> Iterable[bytes]:
        """The pieces of the text of each family that has a series."""
        if self._refs != (refs := list(jobs)):
            self._relabel(jobs)
            self._refs = refs
        if not self._shown:
            return
        entries = [jobs[ref] for ref in self._shown]
        columns = {**self._fixed, **_columns(entries, now_us)}
        ends = [now_us if entry.ended_us is None else entry.ended_us for entry in entries]
        runtimes = [end - start if start < end else 0 for start, end in zip(self._started_us, ends, strict=True)]
        columns["runtime_us"] = runtimes
        for head, series in self._families:
            lines = [one.render(columns) for one in series]
            if any(lines):
                yield head
                yield from lines
                yield b"\n"

    def _relabel(self, jobs: Mapping[str, JobEntry]) -> None:
        # A requeued job may run again while its last run is still in grace: one job and node is one series, the newer.
        newest = {(entry.run.target.job_id, entry.run.target.node): ref for ref, entry in jobs.items()}
        self._shown = list(newest.values())
        runs = [jobs[ref].run for ref in self._shown]
        self._fixed = {name: [getattr(run, name) for run in runs] for name in ("cpus", "gpus")}
        self._fixed["one"] = [1] * len(runs)
        self._started_us = [run.started_us for run in runs]
        labels = [_labels(run) for run in runs]
        for _, series in self._families:
            for one in series:
                one.relabel(labels)


def _labels(run: OpenRun) -> dict[str, str | None]:
    target = run.target
    return {
        "job_id": target.job_id,
        "user": run.user_name,
        "account": run.account,
        "partition": run.partition,
        "qos": run.qos,
        "node": target.node,
        "cluster": target.cluster,
    }


def _columns(entries: Sequence[JobEntry], now_us: int) -> dict[str, Column]:
    """The values of the last samples by name."""
    columns: dict[str, Column] = {"cpu_percent": [entry.cpu_percent for entry in entries]}
    columns.update(_of_readings([entry.reading or _NOT_READ for entry in entries]))
    columns.update(_of_usage([entry.usage or _NOT_USED for entry in entries]))
    columns.update(_cpu_modes(columns))
    looks = [entry.reading.time_us if entry.reading else None for entry in entries]
    columns["sample_age_us"] = [None if at is None else (now_us - at if at < now_us else 0) for at in looks]
    return columns


# One comprehension a column: an attribute read by its literal name costs a third of one read through attrgetter, and no
# tuple is made that the garbage collector has to look at.
def _of_readings(readings: Sequence[Reading]) -> dict[str, Column]:
    return {
        "memory_current_bytes": [reading.memory_current_bytes for reading in readings],
        "memory_limit_bytes": [reading.memory_limit_bytes for reading in readings],
        "memory_rss_bytes": [reading.memory_rss_bytes for reading in readings],
        "memory_cache_bytes": [reading.memory_cache_bytes for reading in readings],
        "memory_shmem_bytes": [reading.memory_shmem_bytes for reading in readings],
        "processes": [reading.processes for reading in readings],
        "threads": [reading.threads for reading in readings],
        "pressure_cpu_some_us": [reading.pressure_cpu_some_us for reading in readings],
        "pressure_cpu_full_us": [reading.pressure_cpu_full_us for reading in readings],
        "pressure_memory_some_us": [reading.pressure_memory_some_us for reading in readings],
        "pressure_memory_full_us": [reading.pressure_memory_full_us for reading in readings],
        "pressure_io_some_us": [reading.pressure_io_some_us for reading in readings],
        "pressure_io_full_us": [reading.pressure_io_full_us for reading in readings],
    }


def _of_usage(usages: Sequence[NodeUsage]) -> dict[str, Column]:
    """Counters come from the run's usage, which only grows: it outlives a restart of the daemon and a process that took
    its counters with it, either of which would look like a counter reset to Prometheus.
    """
    return {
        "cpu_usage_us": [usage.cpu_usage_us for usage in usages],
        "cpu_user_us": [usage.cpu_user_us for usage in usages],
        "cpu_system_us": [usage.cpu_system_us for usage in usages],
        "cpu_throttled_us": [usage.cpu_throttled_us for usage in usages],
        "memory_peak_bytes": [usage.memory_peak_bytes for usage in usages],
        "oom_kills": [usage.oom_kills for usage in usages],
        "io_read_bytes": [usage.io_read_bytes for usage in usages],
        "io_write_bytes": [usage.io_write_bytes for usage in usages],
    }


def _cpu_modes(columns: Mapping[str, Column]) -> dict[str, Column]:
    """User and system time of the jobs where both are known, else all time as one, so that a sum counts none twice."""
    user, system, usage = columns["cpu_user_us"], columns["cpu_system_us"], columns["cpu_usage_us"]
    if None not in user and None not in system:
        return {"cpu_all_us": (None,) * len(usage)}
    split = [None not in pair for pair in zip(user, system, strict=True)]
    return {
        "cpu_user_us": [value if known else None for value, known in zip(user, split, strict=True)],
        "cpu_system_us": [value if known else None for value, known in zip(system, split, strict=True)],
        "cpu_all_us": [None if known else value for value, known in zip(usage, split, strict=True)],
    }
