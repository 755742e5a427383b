"""The columns of `jobs` and `job_nodes`, derived from the domain's values. The trail's snapshots are these rows too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jobtrail.domain.events import NodeUsage
from jobtrail.domain.job import Job, NodeRun
from jobtrail.domain.job_facts import JobFacts

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def to_datetime(time_us: int | None) -> datetime | None:
    """A time in µs since 1970 as a datetime in UTC, exact to the microsecond."""
    return None if time_us is None else EPOCH + timedelta(microseconds=time_us)


def to_seconds(duration_us: int | None) -> float | None:
    """A duration in µs as seconds."""
    return None if duration_us is None else duration_us / 1e6


def encode(row: Any) -> str:
    """A row, or several, as JSON text for a jsonb parameter."""
    return msgspec.json.encode(row).decode()


def job_row(job: Job) -> Row:
    """The columns of `jobs`, without the projection itself. A value nobody reported is None."""
    facts = job.facts
    row: Row = {
        "cluster_name": job.cluster_name,
        "job_id": job.job_id,
        "run": job.run,
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
        "state": job.state,
        "state_confirmed": job.state_confirmed,
        "verdict": job.verdict,
        "start_time": to_datetime(job.start_us),
        "end_time": to_datetime(job.end_us),
        "start_inferred": job.start_inferred,
        "end_inferred": False,
        "slurm_start_time": None if job.slurm_start_time is None else to_datetime(job.slurm_start_time * 1_000_000),
        "sluid": job.sluid,
        "restart_count": facts.restart_count,
        "nodes_started": job.nodes_started,
        "nodes_ended": job.nodes_ended,
        "nodes_reporting": job.nodes_reporting,
        "cpus_allocated": job.cpus_allocated,
        "gpus_allocated": _gpus(facts),
        "gpu_vendor": facts.gpu_vendor,
        "memory_limit_bytes": facts.memory_limit_bytes,
        "correlation_id": job.correlation_id,
    }
    all_ended = 0 < job.nodes_started <= job.nodes_ended
    row.update(_usage_columns(job.usage, job.window_us if all_ended else 0))
    row.update(_outcome_columns(job))
    return row


def node_row(job: Job, part: NodeRun) -> Row:
    """The columns of `job_nodes`, without the projection itself."""
    both = part.started_us is not None and part.ended_us is not None
    window_us = (part.ended_us or 0) - (part.started_us or 0) if both else 0
    return {
        "cluster_name": job.cluster_name,
        "job_id": job.job_id,
        "run": job.run,
        "node": part.node,
        "started_at": to_datetime(part.started_us),
        "ended_at": to_datetime(part.ended_us),
        "start_inferred": part.found,
        "opened_by": part.opened_by,
        "cpus": part.cpus,
        **_usage_columns(part.usage, window_us),
    }


def with_projection(row: Row, value: Job | NodeRun) -> Row:
    """A row with the value it was derived from, as the table holds it."""
    return {**row, "projection": value}


def _usage_columns(usage: NodeUsage | None, window_us: int) -> Row:
    usage = usage or NodeUsage()
    covered = None if usage.covered_us is None or window_us <= 0 else min(1.0, usage.covered_us / window_us)
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
        "coverage_ratio": covered,
        "sample_count": usage.sample_count,
        "first_sample_at": to_datetime(usage.first_sample_us),
        "last_sample_at": to_datetime(usage.last_sample_us),
    }


def _outcome_columns(job: Job) -> Row:
    if job.outcome is None:
        return {"exit_code": None, "exit_signal": None, "verdict_evidence": None}
    outcome = job.outcome.outcome
    evidence = {
        "event_id": job.outcome.stamp.event_id,
        "time": to_datetime(job.outcome.stamp.time_us),
        "confirmed": job.outcome.confirmed,
        "outcome": outcome,
    }
    return {"exit_code": outcome.exit_code, "exit_signal": outcome.exit_signal, "verdict_evidence": evidence}


def _gpus(facts: JobFacts) -> int | None:
    """GPUs of the run. A sender names those of its own node, so of several nodes the sum is not known from facts."""
    if facts.gpu_devices is None or len(facts.nodes or ("",)) != 1:
        return None
    return len(facts.gpu_devices)
