-- Write runs as they are now. $1 JSON array of rows of jobs
INSERT INTO jobs (
    cluster_name, job_id, run, correlation_id, sluid, nodes_started, nodes_ended, nodes_reporting, nodes_total,
    awaits, submit_time, start_time, end_time, start_inferred, end_inferred, end_not_before, slurm_start_time,
    suspended_seconds, user_name, uid, gid, account, partition, qos, job_name, comment, reservation, work_dir,
    command, nodes, node_list, restart_count, array_job_id, array_task_id, het_leader_job_id, het_job_offset,
    time_limit_seconds, cpus_allocated, gpus_allocated, gpu_vendor, memory_limit_bytes, memory_requested_bytes,
    cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_seconds, memory_peak_bytes, oom_kills,
    io_read_bytes, io_write_bytes, processes_peak, usage_sources, usage_absent, coverage_ratio, sample_count,
    first_sample_at, last_sample_at, state, state_confirmed, verdict, raw_state, reason, exit_code, exit_signal,
    derived_exit_code, derived_exit_signal, out_of_memory_step, outcome_source, verdict_evidence, projection
)
SELECT
    cluster_name, job_id, run, correlation_id, sluid, nodes_started, nodes_ended, nodes_reporting, nodes_total,
    awaits, submit_time, start_time, end_time, start_inferred, end_inferred, end_not_before, slurm_start_time,
    suspended_seconds, user_name, uid, gid, account, partition, qos, job_name, comment, reservation, work_dir,
    command, nodes, node_list, restart_count, array_job_id, array_task_id, het_leader_job_id, het_job_offset,
    time_limit_seconds, cpus_allocated, gpus_allocated, gpu_vendor, memory_limit_bytes, memory_requested_bytes,
    cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_seconds, memory_peak_bytes, oom_kills,
    io_read_bytes, io_write_bytes, processes_peak, usage_sources, usage_absent, coverage_ratio, sample_count,
    first_sample_at, last_sample_at, state, state_confirmed, verdict, raw_state, reason, exit_code, exit_signal,
    derived_exit_code, derived_exit_signal, out_of_memory_step, outcome_source, verdict_evidence, projection
FROM jsonb_populate_recordset(NULL::jobs, $1::jsonb)
ON CONFLICT (cluster_name, job_id, run) DO UPDATE SET (
    correlation_id, sluid, nodes_started, nodes_ended, nodes_reporting, nodes_total, awaits, submit_time,
    start_time, end_time, start_inferred, end_inferred, end_not_before, slurm_start_time, suspended_seconds,
    user_name, uid, gid, account, partition, qos, job_name, comment, reservation, work_dir, command, nodes,
    node_list, restart_count, array_job_id, array_task_id, het_leader_job_id, het_job_offset,
    time_limit_seconds, cpus_allocated, gpus_allocated, gpu_vendor, memory_limit_bytes, memory_requested_bytes,
    cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_seconds, memory_peak_bytes, oom_kills,
    io_read_bytes, io_write_bytes, processes_peak, usage_sources, usage_absent, coverage_ratio, sample_count,
    first_sample_at, last_sample_at, state, state_confirmed, verdict, raw_state, reason, exit_code, exit_signal,
    derived_exit_code, derived_exit_signal, out_of_memory_step, outcome_source, verdict_evidence, projection,
    updated_at
) = (
    EXCLUDED.correlation_id, EXCLUDED.sluid, EXCLUDED.nodes_started, EXCLUDED.nodes_ended,
    EXCLUDED.nodes_reporting, EXCLUDED.nodes_total, EXCLUDED.awaits, EXCLUDED.submit_time, EXCLUDED.start_time,
    EXCLUDED.end_time, EXCLUDED.start_inferred, EXCLUDED.end_inferred, EXCLUDED.end_not_before,
    EXCLUDED.slurm_start_time, EXCLUDED.suspended_seconds, EXCLUDED.user_name, EXCLUDED.uid, EXCLUDED.gid,
    EXCLUDED.account, EXCLUDED.partition, EXCLUDED.qos, EXCLUDED.job_name, EXCLUDED.comment,
    EXCLUDED.reservation, EXCLUDED.work_dir, EXCLUDED.command, EXCLUDED.nodes, EXCLUDED.node_list,
    EXCLUDED.restart_count, EXCLUDED.array_job_id, EXCLUDED.array_task_id, EXCLUDED.het_leader_job_id,
    EXCLUDED.het_job_offset, EXCLUDED.time_limit_seconds, EXCLUDED.cpus_allocated, EXCLUDED.gpus_allocated,
    EXCLUDED.gpu_vendor, EXCLUDED.memory_limit_bytes, EXCLUDED.memory_requested_bytes, EXCLUDED.cpu_seconds,
    EXCLUDED.cpu_user_seconds, EXCLUDED.cpu_system_seconds, EXCLUDED.throttled_seconds,
    EXCLUDED.memory_peak_bytes, EXCLUDED.oom_kills, EXCLUDED.io_read_bytes, EXCLUDED.io_write_bytes,
    EXCLUDED.processes_peak, EXCLUDED.usage_sources, EXCLUDED.usage_absent, EXCLUDED.coverage_ratio,
    EXCLUDED.sample_count, EXCLUDED.first_sample_at, EXCLUDED.last_sample_at, EXCLUDED.state,
    EXCLUDED.state_confirmed, EXCLUDED.verdict, EXCLUDED.raw_state, EXCLUDED.reason, EXCLUDED.exit_code,
    EXCLUDED.exit_signal, EXCLUDED.derived_exit_code, EXCLUDED.derived_exit_signal, EXCLUDED.out_of_memory_step,
    EXCLUDED.outcome_source, EXCLUDED.verdict_evidence, EXCLUDED.projection, now()
)
