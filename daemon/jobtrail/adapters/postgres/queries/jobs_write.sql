-- Write runs as they are now. $1 JSON array of rows of jobs
INSERT INTO jobs (
    cluster_name, job_id, run, user_name, uid, gid, account, partition, qos, job_name, comment, reservation,
    work_dir, command, nodes, node_list, state, state_confirmed, exit_code, exit_signal, verdict,
    verdict_evidence, start_time, end_time, start_inferred, end_inferred, slurm_start_time, sluid,
    restart_count, nodes_started, nodes_ended, nodes_reporting, cpus_allocated, gpus_allocated, gpu_vendor,
    memory_limit_bytes, cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_seconds,
    memory_peak_bytes, oom_kills, io_read_bytes, io_write_bytes, processes_peak, usage_sources, usage_absent,
    coverage_ratio, sample_count, first_sample_at, last_sample_at, correlation_id, projection
)
SELECT
    cluster_name, job_id, run, user_name, uid, gid, account, partition, qos, job_name, comment, reservation,
    work_dir, command, nodes, node_list, state, state_confirmed, exit_code, exit_signal, verdict,
    verdict_evidence, start_time, end_time, start_inferred, end_inferred, slurm_start_time, sluid,
    restart_count, nodes_started, nodes_ended, nodes_reporting, cpus_allocated, gpus_allocated, gpu_vendor,
    memory_limit_bytes, cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_seconds,
    memory_peak_bytes, oom_kills, io_read_bytes, io_write_bytes, processes_peak, usage_sources, usage_absent,
    coverage_ratio, sample_count, first_sample_at, last_sample_at, correlation_id, projection
FROM jsonb_populate_recordset(NULL::jobs, $1::jsonb)
ON CONFLICT (cluster_name, job_id, run) DO UPDATE SET (
    user_name, uid, gid, account, partition, qos, job_name, comment, reservation, work_dir, command, nodes,
    node_list, state, state_confirmed, exit_code, exit_signal, verdict, verdict_evidence, start_time,
    end_time, start_inferred, end_inferred, slurm_start_time, sluid, restart_count, nodes_started,
    nodes_ended, nodes_reporting, cpus_allocated, gpus_allocated, gpu_vendor, memory_limit_bytes, cpu_seconds,
    cpu_user_seconds, cpu_system_seconds, throttled_seconds, memory_peak_bytes, oom_kills, io_read_bytes,
    io_write_bytes, processes_peak, usage_sources, usage_absent, coverage_ratio, sample_count,
    first_sample_at, last_sample_at, correlation_id, projection, updated_at
) = (
    EXCLUDED.user_name, EXCLUDED.uid, EXCLUDED.gid, EXCLUDED.account, EXCLUDED.partition, EXCLUDED.qos,
    EXCLUDED.job_name, EXCLUDED.comment, EXCLUDED.reservation, EXCLUDED.work_dir, EXCLUDED.command,
    EXCLUDED.nodes, EXCLUDED.node_list, EXCLUDED.state, EXCLUDED.state_confirmed, EXCLUDED.exit_code,
    EXCLUDED.exit_signal, EXCLUDED.verdict, EXCLUDED.verdict_evidence, EXCLUDED.start_time, EXCLUDED.end_time,
    EXCLUDED.start_inferred, EXCLUDED.end_inferred, EXCLUDED.slurm_start_time, EXCLUDED.sluid,
    EXCLUDED.restart_count, EXCLUDED.nodes_started, EXCLUDED.nodes_ended, EXCLUDED.nodes_reporting,
    EXCLUDED.cpus_allocated, EXCLUDED.gpus_allocated, EXCLUDED.gpu_vendor, EXCLUDED.memory_limit_bytes,
    EXCLUDED.cpu_seconds, EXCLUDED.cpu_user_seconds, EXCLUDED.cpu_system_seconds, EXCLUDED.throttled_seconds,
    EXCLUDED.memory_peak_bytes, EXCLUDED.oom_kills, EXCLUDED.io_read_bytes, EXCLUDED.io_write_bytes,
    EXCLUDED.processes_peak, EXCLUDED.usage_sources, EXCLUDED.usage_absent, EXCLUDED.coverage_ratio,
    EXCLUDED.sample_count, EXCLUDED.first_sample_at, EXCLUDED.last_sample_at, EXCLUDED.correlation_id,
    EXCLUDED.projection,
    now()
)
