"""The columns of `jobs`, `job_nodes` and `job_gpus`, derived from the domain's values.

The trail's snapshots are rows of `jobs` too.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jobtrail.domain.energy import Method
from jobtrail.domain.events import EmissionBasis, GpuUsage, NodeUsage
from jobtrail.domain.job import Job, NodeRun
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.registers import Word
from jobtrail.domain.usage import energy_microjoules

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def to_datetime(time_us: int | None) -> datetime | None:
    """A time in µs since 1970 as a datetime in UTC, exact to the microsecond."""
    return None if time_us is None else EPOCH + timedelta(microseconds=time_us)


def to_seconds(duration_us: int | None) -> float | None:
    """A duration in µs as seconds."""
    return None if duration_us is None else duration_us / 1e6


def from_millionths(number: int | None) -> float | None:
    """A number of millionths (µJ, µg) as one of units."""
    return None if number is None else number / 1e6


def encode(row: Any) -> str:
    """A row, or several, as JSON text for a jsonb parameter."""
    return msgspec.json.encode(row).decode()


def job_row(job: Job) -> Row:
    """The columns of `jobs`, without the projection itself. A value nobody reported is None."""
    all_over = 0 < job.nodes_started <= job.nodes_ended
    return {
        **_identity_columns(job),
        **_time_columns(job),
        **_facts_columns(job),
        **_usage_columns(job.total_usage, job.window_us if all_over else 0),
        **_outcome_columns(job),
    }


def _identity_columns(job: Job) -> Row:
    return {
        "cluster_name": job.cluster_name,
        "job_id": job.job_id,
        "run": job.run,
        "correlation_id": job.correlation_id,
        "sluid": job.sluid,
        "nodes_started": job.nodes_started,
        "nodes_ended": job.nodes_ended,
        "nodes_reporting": job.nodes_reporting,
        "nodes_total": len(job.nodes) or None,
        "awaits": job.awaits,
    }


def _time_columns(job: Job) -> Row:
    starts = [word.record.start_time for word in job.words if word.record.start_time is not None]
    slurm_start = min(starts, default=None) if job.slurm_start_time is None else job.slurm_start_time
    suspended = [word.record.suspended_seconds for word in job.words if word.record.suspended_seconds is not None]
    return {
        "submit_time": _to_datetime_of_seconds(job.submit_time),
        "start_time": to_datetime(job.start_us),
        "end_time": to_datetime(job.end_us),
        "start_inferred": job.start_inferred,
        "end_inferred": job.end_inferred,
        "end_not_before": to_datetime(job.end_not_before_us),
        "slurm_start_time": _to_datetime_of_seconds(slurm_start),
        "suspended_seconds": max(suspended, default=None),
    }


def _facts_columns(job: Job) -> Row:
    facts = job.facts
    return {
        "user_name": facts.user_name,
        "uid": facts.uid,
        "gid": facts.gid,
        "account": facts.account,
        "partition": facts.partition,
        "qos": facts.qos,
        "job_name": facts.job_name,
        "comment": facts.comment,
        "reservation": facts.reservation,
        "work_dir": facts.work_dir,
        "command": facts.command,
        "nodes": facts.nodes,
        "node_list": facts.node_list,
        "restart_count": facts.restart_count,
        "array_job_id": facts.array_job_id,
        "array_task_id": facts.array_task_id,
        "het_leader_job_id": facts.het_leader_job_id,
        "het_job_offset": facts.het_job_offset,
        "time_limit_seconds": facts.time_limit_seconds,
        "cpus_allocated": job.cpus_allocated if facts.cpus_total is None else facts.cpus_total,
        "gpus_allocated": _gpus(facts),
        "gpu_vendor": facts.gpu_vendor,
        "memory_limit_bytes": facts.memory_limit_bytes,
        "memory_requested_bytes": facts.memory_requested_bytes,
    }


def node_row(job: Job, part: NodeRun) -> Row:
    """The columns of `job_nodes`, without the projection itself."""
    inferred = part.ended_us is None and part.closed_us is not None
    return {
        "cluster_name": job.cluster_name,
        "job_id": job.job_id,
        "run": job.run,
        "node": part.node,
        "started_at": to_datetime(part.started_us),
        "ended_at": to_datetime(part.over_us),
        "end_inferred": inferred,
        "end_not_before": to_datetime(part.closed_not_before_us) if inferred else None,
        "start_inferred": part.found,
        "opened_by": part.opened_by,
        "cpus": part.cpus,
        **_usage_columns(part.usage, _window_us(part)),
    }


def gpu_rows(job: Job, part: NodeRun) -> list[Row]:
    """The rows of `job_gpus` of one node's part of a run."""
    found = () if part.usage is None else part.usage.gpus
    return [
        {
            "cluster_name": job.cluster_name,
            "job_id": job.job_id,
            "run": job.run,
            "node": part.node,
            **_gpu_columns(gpu, _window_us(part)),
        }
        for gpu in found
    ]


def _gpu_columns(gpu: GpuUsage, window_us: int) -> Row:
    return {
        "gpu_id": gpu.gpu_id,
        "vendor": gpu.vendor,
        "minor": gpu.minor,
        "name": gpu.name,
        "memory_total_bytes": gpu.memory_total_bytes,
        "resolved_by": gpu.resolved_by,
        "observed_seconds": to_seconds(gpu.observed_us),
        "busy_seconds": to_seconds(gpu.busy_us),
        "unused_seconds": to_seconds(gpu.unused_us),
        "utilization_mean_percent": _mean_percent(gpu.busy_us, gpu.observed_us),
        "memory_peak_bytes": gpu.memory_peak_bytes,
        "energy_joules": from_millionths(gpu.energy_microjoules),
        "energy_covered_seconds": to_seconds(gpu.energy_covered_us),
        "energy_coverage_ratio": _covered(gpu.energy_covered_us, window_us),
        "energy_method": gpu.energy_method,
        "errors": gpu.errors or None,
        "attribution_mismatch": gpu.mismatch,
    }


def _window_us(part: NodeRun) -> int:
    """How long the node had the run; 0 while that goes on or is unknown."""
    return 0 if part.started_us is None or part.over_us is None else part.over_us - part.started_us


def _covered(covered_us: int | None, window_us: int) -> float | None:
    return None if covered_us is None or window_us <= 0 else min(1.0, covered_us / window_us)


def _mean_percent(busy_us: int | None, observed_us: int | None) -> float | None:
    return None if busy_us is None or not observed_us else 100.0 * busy_us / observed_us


def with_projection(row: Row, value: Job | NodeRun) -> Row:
    """A row with the value it was derived from, as the table holds it."""
    return {**row, "projection": value}


def _usage_columns(usage: NodeUsage | None, window_us: int) -> Row:
    usage = usage or NodeUsage()
    return {
        "cpu_seconds": to_seconds(usage.cpu_usage_us),
        "cpu_user_seconds": to_seconds(usage.cpu_user_us),
        "cpu_system_seconds": to_seconds(usage.cpu_system_us),
        "throttled_seconds": to_seconds(usage.cpu_throttled_us),
        "memory_peak_bytes": usage.memory_peak_bytes,
        "oom_kills": usage.oom_kills,
        "io_read_bytes": usage.io_read_bytes,
        "io_write_bytes": usage.io_write_bytes,
        "processes_peak": usage.processes_peak,
        "usage_sources": usage.sources or None,
        "usage_absent": usage.absent or None,
        "coverage_ratio": _covered(usage.covered_us, window_us),
        "sample_count": usage.sample_count,
        "first_sample_at": to_datetime(usage.first_sample_us),
        "last_sample_at": to_datetime(usage.last_sample_us),
        "gpu_seconds": to_seconds(usage.gpu_observed_us),
        "gpu_busy_seconds": to_seconds(usage.gpu_busy_us),
        "gpu_unused_seconds": to_seconds(usage.gpu_unused_us),
        "gpu_utilization_mean_percent": _mean_percent(usage.gpu_busy_us, usage.gpu_observed_us),
        "gpu_memory_peak_bytes": usage.gpu_memory_peak_bytes,
        "energy_covered_seconds": to_seconds(usage.energy_covered_us),
        "energy_coverage_ratio": _covered(usage.energy_covered_us, window_us),
        **_energy_columns(usage),
    }


def _energy_columns(usage: NodeUsage) -> Row:
    """Energy and emissions. Grams that are of a part of the energy only, because a node had no factor, are left out."""
    energy = energy_microjoules(usage)
    whole = energy is not None and usage.emissions_energy_microjoules == energy
    bases = usage.emission_bases if whole else ()
    one = bases[0] if len(bases) == 1 else None
    return {
        "energy_joules": from_millionths(energy),
        "energy_gpu_joules": from_millionths(usage.energy_gpu_microjoules),
        "energy_cpu_joules": from_millionths(usage.energy_cpu_microjoules),
        "energy_dram_joules": from_millionths(usage.energy_dram_microjoules),
        "energy_method": _energy_method(usage),
        "emissions_grams": from_millionths(usage.emissions_micrograms) if whole else None,
        "emission_factor_grams_per_kwh": None if one is None else from_millionths(one.micrograms_per_kwh),
        "emission_factor_year": None if one is None else one.year,
        "emission_factor_source": ("; ".join(map(_basis, bases)) or None) if one is None else one.source,
        "pue": None if one is None else from_millionths(one.pue_millionths),
    }


def _basis(basis: EmissionBasis) -> str:
    year = "" if basis.year is None else f" {basis.year}"
    return f"{basis.micrograms_per_kwh / 1e6:g} g/kWh, PUE {basis.pue_millionths / 1e6:g}, {basis.source}{year}"


def _energy_method(usage: NodeUsage) -> str | None:
    """How the energy of the components that have a number came about, as `sources` says of each."""
    known = [part for part in ("gpu", "cpu", "dram") if getattr(usage, f"energy_{part}_microjoules") is not None]
    methods = {word for part in known for word in usage.sources.get(f"energy_{part}", "").split(",") if word}
    return next(iter(methods)) if len(methods) == 1 else (Method.MIXED if methods else None)


def _outcome_columns(job: Job) -> Row:
    ruling = job.ruling
    return {
        "state": ruling.state,
        "state_confirmed": ruling.confirmed,
        "verdict": ruling.verdict,
        "raw_state": ruling.raw_state,
        "reason": ruling.reason,
        "exit_code": ruling.exit_code,
        "exit_signal": ruling.exit_signal,
        "derived_exit_code": ruling.derived_exit_code,
        "derived_exit_signal": ruling.derived_exit_signal,
        "out_of_memory_step": ruling.out_of_memory_step,
        "outcome_source": ruling.source,
        "verdict_evidence": _evidence(job) if job.is_over else None,
    }


def _evidence(job: Job) -> Row:
    """All that speaks for or against the verdict, with whose word it is; what is unknown is left out."""
    facts, usage = job.facts, job.total_usage or NodeUsage()
    told = job.outcome
    parts: Row = {
        "oom_kills": usage.oom_kills,
        "memory_peak_bytes": usage.memory_peak_bytes,
        "memory_limit_bytes": facts.memory_limit_bytes,
        "memory_requested_bytes": facts.memory_requested_bytes,
        "time_limit_seconds": facts.time_limit_seconds,
        "run_seconds": _run_seconds(job),
        "closing": job.closing.closing if job.closing is not None else None,
        "told": None if told is None else {
            "event_id": told.stamp.event_id,
            "time": to_datetime(told.stamp.time_us),
            "confirmed": told.confirmed,
            "outcome": told.outcome,
        },
        "slurm": {word.record.origin: _word(word) for word in job.words} or None,
    }  # fmt: skip
    return {name: value for name, value in parts.items() if value is not None}


def _run_seconds(job: Job) -> float | None:
    return None if job.start_us is None or job.end_us is None else to_seconds(job.end_us - job.start_us)


def _word(word: Word) -> Row:
    record = word.record
    said: Row = {
        "event_id": word.stamp.event_id,
        "time": to_datetime(word.stamp.time_us),
        "state": record.state,
        "flags": record.flags or None,
        "reason": record.reason,
        "end_time": _to_datetime_of_seconds(record.end_time),
        "outcome": record.outcome if record.outcome != Outcome() else None,
        "cancelled_by_uid": record.cancelled_by_uid,
        "out_of_memory_step": record.out_of_memory_step or None,
        "node_states": record.node_states or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _gpus(facts: JobFacts) -> int | None:
    """GPUs of the run. A hook names those of its own node, so of several nodes only Slurm knows the sum."""
    if facts.gpus_total is not None or facts.gpu_devices is None or len(facts.nodes or ("",)) != 1:
        return facts.gpus_total
    return len(facts.gpu_devices)


def _to_datetime_of_seconds(seconds: int | None) -> datetime | None:
    return None if seconds is None else to_datetime(seconds * 1_000_000)
