-- Samples of a run by time. $1 cluster, $2 job id, $3 openers, $4 begin, $5 end, $6 limit
SELECT
    sampled_at, node, source, cpu_percent, cpu_seconds, cpu_user_seconds, cpu_system_seconds, cpu_throttled_periods,
    cpu_throttled_seconds, memory_current_bytes, memory_peak_bytes, memory_limit_bytes, memory_rss_bytes,
    memory_cache_bytes, memory_shmem_bytes, oom_kills, io_read_bytes, io_write_bytes, processes, threads,
    pressure_cpu_some_seconds, pressure_cpu_full_seconds, pressure_memory_some_seconds, pressure_memory_full_seconds,
    pressure_io_some_seconds, pressure_io_full_seconds, absent
FROM job_samples
WHERE job_id = $2 AND cluster_name = $1 AND sampled_at >= $4 AND sampled_at < $5 AND opened_by = ANY ($3::uuid[])
ORDER BY sampled_at, node
LIMIT $6::bigint
