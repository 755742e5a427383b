"""The columns of `jobs` and `job_nodes`, derived from the domain's values. The trail's snapshots are these rows too."""

from __future__ import annotations

from datetime import datetime

from jobtrail.adapters.postgres.usage_columns import usage_columns, window_us
from jobtrail.adapters.postgres.values import Row, to_datetime, to_seconds
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.job import Job, NodeRun
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.people import Signed
from jobtrail.domain.registers import Word


def job_row(job: Job) -> Row:
    """The columns of `jobs`, without the projection itself. A value nobody reported is None."""
    all_over = 0 < job.nodes_started <= job.nodes_ended
    return {
        **_identity_columns(job),
        **_time_columns(job),
        **_facts_columns(job),
        **usage_columns(job.total_usage, job.window_us if all_over else 0),
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
        "submit_time": to_datetime(job.submit_us),
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
        "memory_limit_bytes": job.memory_limit_bytes,
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
        **usage_columns(part.usage, window_us(part)),
    }


def withdrawn_row(job: Job, by: Signed) -> Row:
    """The columns of `jobs_withdrawn`, without the projection: the job as its row in `jobs` would be."""
    facts = job.facts
    return {
        "cluster_name": job.cluster_name,
        "job_id": job.job_id,
        "run": job.run,
        "withdrawn_at": to_datetime(by.stamp.time_us),
        "withdrawn_by": by.person,
        "sent_by": by.sent_by,
        "user_name": facts.user_name,
        "uid": facts.uid,
        "account": facts.account,
        "correlation_id": job.correlation_id,
        "job": job_row(job),
    }


def with_projection(row: Row, value: Job | NodeRun) -> Row:
    """A row with the value it was derived from, as the table holds it."""
    return {**row, "projection": value}


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
        "memory_limit_bytes": job.memory_limit_bytes,
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
