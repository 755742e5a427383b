"""What the client gives back: rows by the names of their columns, as docs/sql.md has them. None is unknown, never 0."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

Row = dict[str, Any]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A run: a row of table `jobs`. None is unknown."""

    cluster_name: str
    job_id: str
    run: int
    state: str
    state_confirmed: bool
    sample_count: int
    correlation_id: str
    updated_at: datetime
    user_name: str | None = None
    uid: int | None = None
    gid: int | None = None
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    job_name: str | None = None
    comment: str | None = None
    reservation: str | None = None
    work_dir: str | None = None
    command: list[str] | None = None
    nodes: list[str] | None = None
    node_list: str | None = None
    raw_state: str | None = None
    reason: str | None = None
    outcome_source: str | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    derived_exit_code: int | None = None
    derived_exit_signal: int | None = None
    out_of_memory_step: bool | None = None
    verdict: str | None = None
    verdict_evidence: dict[str, Any] | None = None
    awaits: str | None = None
    submit_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    start_inferred: bool | None = None
    end_inferred: bool | None = None
    end_not_before: datetime | None = None
    slurm_start_time: datetime | None = None
    suspended_seconds: float | None = None
    sluid: str | None = None
    restart_count: int | None = None
    array_job_id: str | None = None
    array_task_id: int | None = None
    het_leader_job_id: str | None = None
    het_job_offset: int | None = None
    nodes_total: int | None = None
    nodes_started: int | None = None
    nodes_ended: int | None = None
    nodes_reporting: int | None = None
    cpus_allocated: int | None = None
    gpus_allocated: int | None = None
    gpu_vendor: str | None = None
    memory_limit_bytes: int | None = None
    memory_requested_bytes: int | None = None
    time_limit_seconds: int | None = None
    cpu_seconds: float | None = None
    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    throttled_seconds: float | None = None
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    processes_peak: int | None = None
    gpu_seconds: float | None = None
    gpu_busy_seconds: float | None = None
    gpu_unused_seconds: float | None = None
    gpu_utilization_mean_percent: float | None = None
    gpu_memory_peak_bytes: int | None = None
    energy_covered_seconds: float | None = None
    energy_coverage_ratio: float | None = None
    energy_joules: float | None = None
    energy_gpu_joules: float | None = None
    energy_cpu_joules: float | None = None
    energy_dram_joules: float | None = None
    energy_method: str | None = None
    emissions_grams: float | None = None
    emission_factor_grams_per_kwh: float | None = None
    emission_factor_year: int | None = None
    emission_factor_source: str | None = None
    pue: float | None = None
    usage_sources: dict[str, Any] | None = None
    usage_absent: dict[str, Any] | None = None
    coverage_ratio: float | None = None
    first_sample_at: datetime | None = None
    last_sample_at: datetime | None = None


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken of a write. `stored`: the database has it; else it will, as soon as it is reached."""

    job_id: str
    cluster_name: str
    run: int
    event_id: str
    seq: int
    durability: str
    stored: bool


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A row of table `job_samples`; with a step, of `samples` of them."""

    sampled_at: datetime
    node: str
    source: str | None = None
    cpu_percent: float | None = None
    cpu_seconds: float | None = None
    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled_seconds: float | None = None
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
    pressure_cpu_some_seconds: float | None = None
    pressure_cpu_full_seconds: float | None = None
    pressure_memory_some_seconds: float | None = None
    pressure_memory_full_seconds: float | None = None
    pressure_io_some_seconds: float | None = None
    pressure_io_full_seconds: float | None = None
    absent: dict[str, Any] | None = None
    samples: int | None = None


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """A row of table `gpu_samples`; with a step, of `samples` of them."""

    sampled_at: datetime
    node: str
    gpu_id: str
    vendor: str | None = None
    utilization_percent: float | None = None
    memory_utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    sm_clock_hertz: int | None = None
    memory_clock_hertz: int | None = None
    throttle_reasons: list[str] | None = None
    pcie_receive_bytes_per_second: int | None = None
    pcie_transmit_bytes_per_second: int | None = None
    nvlink_receive_bytes: int | None = None
    nvlink_transmit_bytes: int | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    remapped_rows_corrected: int | None = None
    remapped_rows_uncorrected: int | None = None
    remapped_rows_pending: bool | None = None
    sm_active_percent: float | None = None
    sm_occupancy_percent: float | None = None
    tensor_active_percent: float | None = None
    fp64_active_percent: float | None = None
    fp32_active_percent: float | None = None
    fp16_active_percent: float | None = None
    dram_active_percent: float | None = None
    events: list[dict[str, Any]] | None = None
    processes: list[dict[str, Any]] | None = None
    absent: dict[str, Any] | None = None
    samples: int | None = None


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A row of view `job_audit_events`."""

    event_kind: str
    changed_at: datetime
    received_at: datetime
    event_id: str
    chain_id: str
    seq: int
    cluster_name: str | None = None
    job_id: str | None = None
    run: int | None = None
    node: str | None = None
    change_type: str | None = None
    stored_at: datetime | None = None
    changed_by: str | None = None
    source: str | None = None
    correlation_id: str | None = None
    unapplied: str | None = None
    event: dict[str, Any] | None = None
    job_snapshot: dict[str, Any] | None = None
    person: str | None = None  # who made the change, in their own word
    sent_by: str | None = None  # who sent it, as the daemon knew
    request_id: str | None = None


class OtherRun(msgspec.Struct, frozen=True, kw_only=True):
    """Another run of the same job id."""

    cluster_name: str
    run: int


class JobShown(Job, frozen=True, kw_only=True):
    """A run with the reason of its end, or how it stands, in a sentence."""

    sentence: str
    other_runs: list[OtherRun]


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, newest first, and how many match in all."""

    jobs: list[Job]
    total: int


class JobMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of a run by time; where nothing was sampled there is no row. `truncated` names kinds with more."""

    job_id: str
    cluster_name: str
    run: int
    start_time: datetime | None
    end_time: datetime | None
    step_seconds: int | None
    samples: list[Sample]
    gpu_samples: list[GpuSample]
    truncated: list[str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended, why, and how well it used what it had."""

    job_id: str
    cluster_name: str
    run: int
    sentence: str
    outcome: Row
    summary: Row
    efficiency: Row
    sources: Row
    job: Job
    nodes: list[Row]
    gpus: list[Row]
    other_runs: list[OtherRun]


class AuditEvents(msgspec.Struct, frozen=True, kw_only=True):
    """Events of the trail; with `next_cursor` there are more."""

    events: list[AuditEvent]
    next_cursor: str | None = None


class BenchmarkPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of view `benchmark_run_summary`, and how many match in all."""

    runs: list[Row]
    total: int


class Leaderboard(msgspec.Struct, frozen=True, kw_only=True):
    """The best run of each recipe, model and hardware, with `rank` and `value`."""

    metric: str
    stat: str
    runs: list[Row]


class NodePage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of table `nodes`, and how many match in all."""

    nodes: list[Row]
    total: int
