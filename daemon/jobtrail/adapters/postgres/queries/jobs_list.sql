-- Runs, newest first. $1 state, $2 user, $3 account, $4 partition, $5 node, $6 since, $7 until, $8 cluster, $9 uid, $10 limit, $11 offset; NULL is any
SELECT
    cluster_name, job_id, run, user_name, uid, gid, account, partition, qos, job_name, comment, reservation,
    work_dir, command, nodes, node_list, state, raw_state, reason, state_confirmed, outcome_source, exit_code,
    exit_signal, derived_exit_code, derived_exit_signal, out_of_memory_step, verdict, verdict_evidence, awaits,
    submit_time, start_time, end_time, start_inferred, end_inferred, end_not_before, slurm_start_time,
    suspended_seconds, sluid, restart_count, array_job_id, array_task_id, het_leader_job_id, het_job_offset,
    nodes_total, nodes_started, nodes_ended, nodes_reporting, cpus_allocated, gpus_allocated, gpu_vendor,
    memory_limit_bytes, memory_requested_bytes, time_limit_seconds, cpu_seconds, cpu_user_seconds,
    cpu_system_seconds, throttled_seconds, memory_peak_bytes, oom_kills, io_read_bytes, io_write_bytes,
    processes_peak, gpu_seconds, gpu_busy_seconds, gpu_unused_seconds, gpu_utilization_mean_percent,
    gpu_memory_peak_bytes, energy_covered_seconds, energy_coverage_ratio, energy_joules, energy_gpu_joules,
    energy_cpu_joules, energy_dram_joules, energy_method, emissions_grams, emission_factor_grams_per_kwh,
    emission_factor_year, emission_factor_source, pue, usage_sources, usage_absent, coverage_ratio,
    sample_count, first_sample_at, last_sample_at, correlation_id, updated_at
FROM jobs
WHERE ($1::text IS NULL OR state = $1)
  AND ($2::text IS NULL OR user_name = $2)
  AND ($3::text IS NULL OR account = $3)
  AND ($4::text IS NULL OR partition = $4)
  AND ($5::text IS NULL OR nodes @> ARRAY[$5])
  AND ($6::timestamptz IS NULL OR coalesce(end_time, 'infinity') >= $6)
  AND ($7::timestamptz IS NULL OR start_time < $7)
  AND ($8::text IS NULL OR cluster_name = $8)
  AND ($9::bigint IS NULL OR uid = $9)
ORDER BY coalesce(start_time, submit_time, end_time) DESC NULLS LAST, cluster_name, job_id, run DESC
LIMIT $10::bigint OFFSET $11::bigint
