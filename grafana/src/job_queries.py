"""What the dashboard of a job asks of the database. Of a requeued job the newest run is shown, and all are listed."""

from __future__ import annotations

_NEWEST = """
    WHERE j.cluster_name = ${cluster:sqlstring} AND j.job_id = ${job:sqlstring}
    ORDER BY j.run DESC LIMIT 1
"""


def newest(columns: str, view: str) -> str:
    """Columns of the job's newest run in one of the views; `j` is the view."""
    return f"SELECT {columns} FROM {view} j {_NEWEST}"  # noqa: S608 - constants of this package


RUNS = """
    SELECT j.run, j.state, j.verdict, j.state_confirmed, j.outcome_source, j.exit_code, j.exit_signal,
           j.derived_exit_code, j.reason, j.start_time, j.end_time, j.end_inferred, j.restart_count,
           j.verdict_evidence::text AS evidence
    FROM jobs j
    WHERE j.cluster_name = ${cluster:sqlstring} AND j.job_id = ${job:sqlstring}
    ORDER BY j.run DESC LIMIT 50
"""
FACTS = """
    SELECT j.job_name, j.user_name, j.account, j.partition, j.qos, j.submit_time, j.start_time, j.time_limit_seconds,
           e.elapsed_seconds, j.nodes_reporting, j.nodes_total, j.cpus_allocated, j.gpus_allocated,
           j.memory_limit_bytes,
           j.memory_peak_bytes, j.array_job_id, j.correlation_id::text AS correlation_id
    FROM jobs j
    JOIN job_efficiency e USING (cluster_name, job_id, run)
    WHERE j.cluster_name = ${cluster:sqlstring} AND j.job_id = ${job:sqlstring}
    ORDER BY j.run DESC LIMIT 1
"""
NODES = """
    SELECT n.run, n.node, n.started_at, n.ended_at, n.cpus, n.cpu_seconds, n.throttled_seconds, n.memory_peak_bytes,
           n.oom_kills, n.io_read_bytes, n.io_write_bytes, n.energy_joules, n.coverage_ratio,
           n.usage_absent::text AS absent
    FROM job_nodes n
    WHERE n.cluster_name = ${cluster:sqlstring} AND n.job_id = ${job:sqlstring}
    ORDER BY n.run DESC, n.node LIMIT 500
"""
GPUS = """
    SELECT g.run, g.node, g.gpu_id, g.name, g.observed_seconds, g.busy_seconds / nullif(g.observed_seconds, 0) AS busy,
           g.unused_seconds, g.memory_peak_bytes, g.memory_total_bytes, g.energy_joules, g.energy_method,
           g.errors::text AS errors, g.attribution_mismatch
    FROM job_gpus g
    WHERE g.cluster_name = ${cluster:sqlstring} AND g.job_id = ${job:sqlstring}
    ORDER BY g.run DESC, g.node, g.gpu_id LIMIT 500
"""
TRAIL = """
    SELECT a.changed_at, a.event_kind, a.change_type, a.changed_by, a.source, a.node, a.run,
           a.job_snapshot ->> 'state' AS state_after, a.event ->> 'note' AS note, a.unapplied
    FROM job_audit_events a
    WHERE a.job_id = ${job:sqlstring} AND a.cluster_name = ${cluster:sqlstring}
    ORDER BY a.changed_at DESC, a.seq DESC LIMIT 500
"""
EVENTS = """
    SELECT a.changed_at AS time,
           concat_ws(' ', replace(a.event_kind, '_', ' '), 'by ' || a.changed_by, 'on ' || a.node,
                     '→ ' || (a.job_snapshot ->> 'state')) AS text,
           concat_ws(',', a.event_kind, a.changed_by) AS tags
    FROM job_audit_events a
    WHERE a.job_id = ${job:sqlstring} AND a.cluster_name = ${cluster:sqlstring} AND $__timeFilter(a.changed_at)
      AND a.event_kind <> 'checkpoint'
    ORDER BY a.changed_at LIMIT 1000
"""
SAMPLED_CPU = """
    SELECT s.sampled_at AS time, s.node AS metric, s.cpu_percent AS value
    FROM job_samples s
    WHERE s.job_id = ${job:sqlstring} AND s.cluster_name = ${cluster:sqlstring} AND $__timeFilter(s.sampled_at)
    ORDER BY s.sampled_at LIMIT 50000
"""
SAMPLED_MEMORY = """
    SELECT s.sampled_at AS time, s.node AS metric, s.memory_current_bytes AS value
    FROM job_samples s
    WHERE s.job_id = ${job:sqlstring} AND s.cluster_name = ${cluster:sqlstring} AND $__timeFilter(s.sampled_at)
    ORDER BY s.sampled_at LIMIT 50000
"""
SAMPLED_GPU = """
    SELECT s.sampled_at AS time, concat_ws(' ', s.node, s.gpu_id) AS metric, s.utilization_percent AS value
    FROM gpu_samples s
    WHERE s.job_id = ${job:sqlstring} AND s.cluster_name = ${cluster:sqlstring} AND $__timeFilter(s.sampled_at)
    ORDER BY s.sampled_at LIMIT 50000
"""
BENCHMARKS = """
    SELECT b.recipe, b.model, b.status, b.verdict, b.started_at, b.output_tokens_per_second, b.ttft_p50_seconds,
           b.output_tokens_per_joule, b.total_joules, b.energy_invalid_reason
    FROM (SELECT DISTINCT run_uid FROM benchmark_run_job WHERE job_id = ${job:sqlstring}) AS ran
    CROSS JOIN LATERAL (SELECT * FROM benchmark_run_summary s WHERE s.run_uid = ran.run_uid LIMIT 1) AS b
    WHERE b.job_id = ${job:sqlstring} AND b.cluster_name = ${cluster:sqlstring}
    ORDER BY b.started_at DESC LIMIT 100
"""
