"""What a report on a run says: the shapes. Seconds, bytes, joules, ratios from 0 to 1; None is not known, never 0.

`job_report_making` fills them from the stored rows; a page, the terminal and the API show one and the same report.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from jobtrail.domain.usage import SLURM_ACCOUNTING


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of what was allocated, of a run that goes on up to its last sample that was told of; `cores` is how
    many CPUs were busy on the mean."""

    used_seconds: float | None = None
    allocated_seconds: float | None = None
    cpus: int | None = None
    ratio: float | None = None
    cores: float | None = None
    throttled_seconds: float | None = None
    source: str | None = None  # where it is not the last sample's


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The most in use on one node, and what one node's part may use.

    Slurm's accounting knows the largest resident set of one task alone (MaxRSS in sacct(1)): then it is at least that.
    """

    peak_bytes: int | None = None
    limit_bytes: int | None = None
    limit_of: str | None = None  # the node that came nearest to its own, where not all have the same limit
    ratio: float | None = None
    requested_bytes: int | None = None  # of the whole job
    oom_kills: int | None = None
    source: str | None = None
    file_cache: bool = False  # whether it counts, as in a cgroup's counters

    @property
    def of_one_task(self) -> bool:
        """Whether it is a task's, so that the node may have used more."""
        return self.source is not None and SLURM_ACCOUNTING in self.source.split(",")


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """All GPUs of the run together, over the time in which they were looked at."""

    allocated: int | None = None
    observed_seconds: float | None = None
    busy_ratio: float | None = None
    unused_seconds: float | None = None  # without a process of the job on the GPU
    unused_ratio: float | None = None
    memory_peak_bytes: int | None = None
    coverage_ratio: float | None = None  # of the time for which they were allocated


class Time(msgspec.Struct, frozen=True, kw_only=True):
    """Wall time, and what of it counts against the limit, so not while suspended; of a run that goes on, so far."""

    ran_seconds: float | None = None
    counted_seconds: float | None = None
    limit_seconds: float | None = None
    ratio: float | None = None
    waited_seconds: float | None = None  # from submission, or the requeue, to the start
    suspended_seconds: float | None = None


class Io(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that went to and from block devices, so not what a network file system moved."""

    read_bytes: int | None = None
    written_bytes: int | None = None


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Joules of the components that have a number, and what they rest on; not those of whole nodes."""

    joules: float | None = None
    gpu_joules: float | None = None
    cpu_joules: float | None = None
    dram_joules: float | None = None
    coverage_ratio: float | None = None
    method: str | None = None
    emissions_grams: float | None = None
    factor_grams_per_kwh: float | None = None
    factor_source: str | None = None
    factor_year: int | None = None
    pue: float | None = None


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the run the figures are of."""

    ratio: float | None = None  # the last sample's place in the run; None while it goes on
    samples: int = 0
    nodes_reporting: int = 0
    nodes_total: int | None = None

    @property
    def of_all_nodes(self) -> bool:
        """Whether every node of the run told of its usage."""
        return self.nodes_total is not None and self.nodes_reporting >= self.nodes_total


class NodeLine(msgspec.Struct, frozen=True, kw_only=True):
    """One node's part of a run."""

    node: str
    reported: bool
    cpus: int | None = None
    cpu_seconds: float | None = None
    cpu_ratio: float | None = None
    memory_peak_bytes: int | None = None
    memory_ratio: float | None = None
    gpu_busy_ratio: float | None = None
    joules: float | None = None
    coverage_ratio: float | None = None


class GpuLine(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU of a run."""

    node: str
    gpu_id: str
    name: str | None = None
    minor: int | None = None
    observed_seconds: float | None = None
    busy_ratio: float | None = None
    unused_seconds: float | None = None
    unused_ratio: float | None = None
    memory_peak_bytes: int | None = None
    memory_total_bytes: int | None = None
    memory_ratio: float | None = None
    joules: float | None = None
    errors: Mapping[str, int] = {}  # of the driver, by code
    found: bool = True  # among the node's GPUs
    mismatch: str | None = None  # evidence that it was another job's, too


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something to act on, or to know. `figures` are those it rests on, `changes` lines for the batch script."""

    rule: str
    level: str  # problem, warning or hint
    text: str
    figures: Mapping[str, float | int | str] = {}
    changes: tuple[str, ...] = ()


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """Notes, the gravest first; `withheld` says why there is no advice on what to ask for, where there is none."""

    notes: tuple[Note, ...] = ()
    withheld: str | None = None


class JobReport(msgspec.Struct, frozen=True, kw_only=True):
    """A run, how it ended, what it used of what it had, and what to do about it."""

    job_id: str
    cluster_name: str
    run: int
    sentence: str
    state: str
    verdict: str | None = None
    is_over: bool
    job_name: str | None = None
    user_name: str | None = None
    account: str | None = None
    partition: str | None = None
    node_names: tuple[str, ...] = ()
    array_job_id: str | None = None
    array_task_id: int | None = None
    submit_time: datetime | None = None
    start_time: datetime | None = None
    start_inferred: bool = False
    end_time: datetime | None = None
    end_inferred: bool = False
    restart_count: int | None = None
    out_of_memory_step: bool = False
    time: Time
    cpu: Cpu
    memory: Memory
    gpus: Gpus
    io: Io
    energy: Energy
    coverage: Coverage
    nodes: tuple[NodeLine, ...] = ()
    gpu_lines: tuple[GpuLine, ...] = ()
    uneven: tuple[str, ...] = ()  # sentences that name the nodes and GPUs that are least like the others
    other_runs: tuple[tuple[str, int], ...] = ()  # (cluster, run) of the same job id
    absent: Mapping[str, str] = {}  # values that could not be measured, with the reason
    advice: Advice = Advice()

    @property
    def has_gpus(self) -> bool:
        """Whether GPUs were allocated or looked at."""
        return bool(self.gpus.allocated or self.gpu_lines)
