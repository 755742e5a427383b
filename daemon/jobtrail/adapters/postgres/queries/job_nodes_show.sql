-- The nodes of a run. $1 cluster, $2 job id, $3 run
SELECT
    cluster_name, job_id, run, node, started_at, ended_at, start_inferred, end_inferred, end_not_before,
    opened_by, cpus, cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_seconds, memory_peak_bytes,
    oom_kills, io_read_bytes, io_write_bytes, processes_peak, gpu_seconds, gpu_busy_seconds,
    gpu_unused_seconds, gpu_utilization_mean_percent, gpu_memory_peak_bytes, energy_covered_seconds,
    energy_coverage_ratio, energy_joules, energy_gpu_joules, energy_cpu_joules, energy_dram_joules,
    energy_method, emissions_grams, emission_factor_grams_per_kwh, emission_factor_year,
    emission_factor_source, pue, usage_sources, usage_absent, coverage_ratio, sample_count, first_sample_at,
    last_sample_at, updated_at, projection
FROM job_nodes
WHERE cluster_name = $1 AND job_id = $2 AND run = $3
ORDER BY node
