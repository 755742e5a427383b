"""Readings: what one look at a job's resource counters gave.

A value is a number, or None with the reason in `absent`. Nothing is ever 0 because it could not be read.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jobtrail.domain.events import Whereabouts


class Miss(StrEnum):
    """Why a job gave no reading at all."""

    NOT_YET = "not_yet"  # never seen so far: a prolog runs before the cgroup exists
    GONE = "gone"  # seen before and now removed: the job's processes have ended
    UNREADABLE = "unreadable"  # it is there and an error keeps us from reading it


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A run on this node whose counters are to be read. `ref` is the id of the event that opened it."""

    ref: str
    cluster: str
    job_id: str
    node: str
    uid: int | None = None
    sluid: str | None = None
    whereabouts: Whereabouts = Whereabouts()


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one job: cumulative counters since its start, and levels now."""

    time_us: int
    source: str  # cgroup_v1 | cgroup_v2 | procfs
    cpu_usage_us: int | None = None
    cpu_user_us: int | None = None
    cpu_system_us: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled_us: int | None = None
    memory_current_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_rss_bytes: int | None = None
    memory_cache_bytes: int | None = None
    memory_shmem_bytes: int | None = None
    oom_kills: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    processes: int | None = None
    threads: int | None = None
    pressure_cpu_some_us: int | None = None
    pressure_cpu_full_us: int | None = None
    pressure_memory_some_us: int | None = None
    pressure_memory_full_us: int | None = None
    pressure_io_some_us: int | None = None
    pressure_io_full_us: int | None = None
    absent: dict[str, str] = {}


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """A look that gave nothing, and why."""

    miss: Miss
    detail: str = ""


class CpuTotals(msgspec.Struct, frozen=True, kw_only=True):
    """CPU counters read in one go: the parent of all jobs, which keeps what ended jobs used, and each living job.

    A job whose counter could not be read is missing from `by_ref`. `parent_us` is None where there is no such parent.
    """

    parent_us: int | None
    by_ref: dict[str, int]


class FoundJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose cgroup lies on this node, as a scan found it."""

    job_id: str  # public id
    uid: int | None
    path: str
    populated: bool | None  # whether any process is in it; None where that cannot be told
    sluid: str | None = None


class NodeReading(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the node itself; `cpu_busy_us` and `cpu_total_us` are summed over CPUs since boot."""

    time_us: int
    cpu_busy_us: int | None = None
    cpu_total_us: int | None = None
    cpus: int | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    load_1m: float | None = None
    absent: dict[str, str] = {}
