"""What people ask of the stored jobs, their samples and their trail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from jobtrail.core.ports import Row
from jobtrail.domain.analytics import Question
from jobtrail.domain.analytics_answer import Analysis
from jobtrail.domain.job import Job
from jobtrail.domain.job_report_timeline import Timeline


class NodeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes to list; None is any. `state` is a base state of Slurm or one of its state flags."""

    state: str | None = None
    partition: str | None = None
    cluster: str | None = None


class NodeList(msgspec.Struct, frozen=True, kw_only=True):
    """Some nodes by name, and how many there are in all. A node is a row of `nodes` by column name."""

    nodes: list[Row]
    total: int


class NodeReader(Protocol):
    """What is held of the clusters' nodes."""

    async def list_nodes(self, wanted: NodeFilter, *, limit: int, offset: int) -> NodeList:
        """Nodes that match, by name. Raises StoreUnavailable."""
        ...


class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A run with its nodes. `other_runs` are (cluster, run) of the same job id, newest first."""

    job: Row  # of table `jobs`, by column name
    sentence: str  # why the run ended, or how it stands
    efficiency: Row  # of view `job_efficiency`
    nodes: list[Row]  # of table `job_nodes`
    gpus: list[Row]  # of table `job_gpus`
    benchmarks: list[Row]  # those linked to the run: run_uid, recipe_name, tool, model, status, role, times
    other_runs: list[tuple[str, int]]


class JobReader(Protocol):
    """What is held of the jobs."""

    async def show_job(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> JobDetail:
        """A run, the newest unless `run` names one; a bare number is Slurm's, N_M task M of array N.

        Raises NotFound, StoreUnavailable.
        """
        ...

    async def job_timeline(self, detail: JobDetail, *, now: datetime) -> Timeline:
        """The time lines of a run that was shown, up to `now` if it goes on. Raises StoreUnavailable."""
        ...


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list; None is any. A run is in [since, until) if it ran at any moment of it."""

    state: str | None = None
    user: str | None = None
    account: str | None = None
    partition: str | None = None
    node: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    cluster: str | None = None
    uid: int | None = None


# The columns of a job in a list, in their order.
JOB_COLUMNS = (
    "cluster_name", "job_id", "run", "user_name", "uid", "gid", "account", "partition", "qos", "job_name", "comment",
    "reservation", "work_dir", "command", "nodes", "node_list", "state", "raw_state", "reason", "state_confirmed",
    "outcome_source", "exit_code", "exit_signal", "derived_exit_code", "derived_exit_signal", "out_of_memory_step",
    "verdict", "verdict_evidence", "awaits", "submit_time", "start_time", "end_time", "start_inferred",
    "end_inferred", "end_not_before", "slurm_start_time", "suspended_seconds", "sluid", "restart_count",
    "array_job_id", "array_task_id", "het_leader_job_id", "het_job_offset", "nodes_total", "nodes_started",
    "nodes_ended", "nodes_reporting", "cpus_allocated", "gpus_allocated", "gpu_vendor", "memory_limit_bytes",
    "memory_requested_bytes", "time_limit_seconds", "cpu_seconds", "cpu_user_seconds", "cpu_system_seconds",
    "throttled_seconds", "memory_peak_bytes", "oom_kills", "io_read_bytes", "io_write_bytes", "processes_peak",
    "gpu_seconds", "gpu_busy_seconds", "gpu_unused_seconds", "gpu_utilization_mean_percent", "gpu_memory_peak_bytes",
    "energy_covered_seconds", "energy_coverage_ratio", "energy_joules", "energy_gpu_joules", "energy_cpu_joules",
    "energy_dram_joules", "energy_method", "emissions_grams", "emission_factor_grams_per_kwh", "emission_factor_year",
    "emission_factor_source", "pue", "usage_sources", "usage_absent", "coverage_ratio", "sample_count",
    "first_sample_at", "last_sample_at", "correlation_id", "updated_at",
)  # fmt: skip


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """One page of runs, newest first, and how many there are in all. A job is a row of `jobs` by column name."""

    jobs: list[Row]
    total: int


class SampleWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Which samples of a run; without a begin or an end, from its start and to its end, a minute more on each side."""

    start_time: datetime | None = None
    end_time: datetime | None = None
    limit: int = 1000  # rows of each kind, the oldest first
    step_seconds: int | None = None  # None gives every sample as it was taken


class JobSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of a run by time. With a step, a row is of the step that begins at `sampled_at`; a step in which nothing
    was sampled has none. `truncated` names the kinds of which there are more."""

    start_time: datetime | None
    end_time: datetime | None
    samples: list[Row]
    gpu_samples: list[Row]
    truncated: tuple[str, ...] = ()


class AuditPlace(msgspec.Struct, frozen=True):
    """A place in the trail, as all of it is ordered."""

    changed_at: datetime
    chain_id: str
    seq: int


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of the trail; None is any. With a `uid`, those of that user's runs alone.

    `changed_by` is an Actor, what a person calls themselves, or who sent it; `correlation_id` a run's or a request's.
    """

    since: datetime | None = None
    until: datetime | None = None
    changed_by: str | None = None
    correlation_id: str | None = None
    uid: int | None = None


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events, newest first, and the place after which to go on; None where there are no more."""

    events: Sequence[Row]  # rows of view `job_audit_events`
    following: AuditPlace | None


class RunFinder(Protocol):
    """Finds runs for those who have something to say of them."""

    async def held_run(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> Job:
        """A run as it is held, also a withdrawn one; the newest unless `run` names one. Raises NotFound,
        StoreUnavailable."""
        ...


class JobQueries(JobReader, RunFinder, Protocol):
    """What is held of the jobs, in lists and over time. Every method raises StoreUnavailable."""

    async def list_jobs(self, wanted: JobFilter | None = None, *, limit: int = 50, offset: int = 0) -> JobList:
        """Runs that match, newest first."""
        ...

    async def audit_log(
        self, job_id: str, *, run: int | None = None, cluster: str | None = None, limit: int = 100
    ) -> list[Row]:
        """What happened to a job, oldest first; of more than `limit` events the newest. Rows of job_audit_events."""
        ...


class SampleReader(Protocol):
    """What is held of jobs' samples."""

    async def job_samples(self, job: Mapping[str, object], window: SampleWindow, *, now: datetime) -> JobSamples:
        """Samples of the run whose row of `jobs` this is, up to `now` if it goes on. Raises StoreUnavailable."""
        ...


class TrailReader(Protocol):
    """What is held of the trail."""

    async def trail(self, wanted: AuditFilter, *, limit: int, after: AuditPlace | None = None) -> AuditPage:
        """Events of jobs that match, newest first, beyond `after`. Raises StoreUnavailable."""
        ...


class AnalyticsReader(Protocol):
    """Figures of many runs."""

    async def analyse(self, question: Question, *, uid: int | None) -> Analysis:
        """The answer, of the runs of user `uid` alone where one is given.

        Raises InvalidEvent where there is more to answer than is allowed, StoreUnavailable.
        """
        ...


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """All that may be asked of what is stored."""

    jobs: JobQueries
    samples: SampleReader
    trail: TrailReader
    analytics: AnalyticsReader
