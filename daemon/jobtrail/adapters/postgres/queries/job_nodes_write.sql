-- Write nodes' parts of runs as they are now. $1 JSON array of rows of job_nodes
INSERT INTO job_nodes (
    cluster_name, job_id, run, node, started_at, ended_at, end_inferred, end_not_before, start_inferred,
    opened_by, cpus, cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_seconds, memory_peak_bytes,
    oom_kills, io_read_bytes, io_write_bytes, processes_peak, usage_sources, usage_absent, coverage_ratio,
    sample_count, first_sample_at, last_sample_at, gpu_seconds, gpu_busy_seconds, gpu_unused_seconds,
    gpu_utilization_mean_percent, gpu_memory_peak_bytes, energy_covered_seconds, energy_coverage_ratio,
    energy_joules, energy_gpu_joules, energy_cpu_joules, energy_dram_joules, energy_method, emissions_grams,
    emission_factor_grams_per_kwh, emission_factor_year, emission_factor_source, pue, projection
)
SELECT
    cluster_name, job_id, run, node, started_at, ended_at, end_inferred, end_not_before, start_inferred,
    opened_by, cpus, cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_seconds, memory_peak_bytes,
    oom_kills, io_read_bytes, io_write_bytes, processes_peak, usage_sources, usage_absent, coverage_ratio,
    sample_count, first_sample_at, last_sample_at, gpu_seconds, gpu_busy_seconds, gpu_unused_seconds,
    gpu_utilization_mean_percent, gpu_memory_peak_bytes, energy_covered_seconds, energy_coverage_ratio,
    energy_joules, energy_gpu_joules, energy_cpu_joules, energy_dram_joules, energy_method, emissions_grams,
    emission_factor_grams_per_kwh, emission_factor_year, emission_factor_source, pue, projection
FROM jsonb_populate_recordset(NULL::job_nodes, $1::jsonb)
ON CONFLICT (cluster_name, job_id, run, node) DO UPDATE SET (
    started_at, ended_at, end_inferred, end_not_before, start_inferred, opened_by, cpus, cpu_seconds,
    cpu_user_seconds, cpu_system_seconds, throttled_seconds, memory_peak_bytes, oom_kills, io_read_bytes,
    io_write_bytes, processes_peak, usage_sources, usage_absent, coverage_ratio, sample_count, first_sample_at,
    last_sample_at, gpu_seconds, gpu_busy_seconds, gpu_unused_seconds, gpu_utilization_mean_percent,
    gpu_memory_peak_bytes, energy_covered_seconds, energy_coverage_ratio, energy_joules, energy_gpu_joules,
    energy_cpu_joules, energy_dram_joules, energy_method, emissions_grams, emission_factor_grams_per_kwh,
    emission_factor_year, emission_factor_source, pue, projection, updated_at
) = (
    EXCLUDED.started_at, EXCLUDED.ended_at, EXCLUDED.end_inferred, EXCLUDED.end_not_before,
    EXCLUDED.start_inferred, EXCLUDED.opened_by, EXCLUDED.cpus, EXCLUDED.cpu_seconds,
    EXCLUDED.cpu_user_seconds, EXCLUDED.cpu_system_seconds, EXCLUDED.throttled_seconds,
    EXCLUDED.memory_peak_bytes, EXCLUDED.oom_kills, EXCLUDED.io_read_bytes, EXCLUDED.io_write_bytes,
    EXCLUDED.processes_peak, EXCLUDED.usage_sources, EXCLUDED.usage_absent, EXCLUDED.coverage_ratio,
    EXCLUDED.sample_count, EXCLUDED.first_sample_at, EXCLUDED.last_sample_at, EXCLUDED.gpu_seconds,
    EXCLUDED.gpu_busy_seconds, EXCLUDED.gpu_unused_seconds, EXCLUDED.gpu_utilization_mean_percent,
    EXCLUDED.gpu_memory_peak_bytes, EXCLUDED.energy_covered_seconds, EXCLUDED.energy_coverage_ratio,
    EXCLUDED.energy_joules, EXCLUDED.energy_gpu_joules, EXCLUDED.energy_cpu_joules,
    EXCLUDED.energy_dram_joules, EXCLUDED.energy_method, EXCLUDED.emissions_grams,
    EXCLUDED.emission_factor_grams_per_kwh, EXCLUDED.emission_factor_year, EXCLUDED.emission_factor_source,
    EXCLUDED.pue, EXCLUDED.projection, now()
)
