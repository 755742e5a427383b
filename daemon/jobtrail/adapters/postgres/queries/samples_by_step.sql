-- Samples of a run, a row a step in which there are any. $1 cluster, $2 job id, $3 openers, $4 begin, $5 end, $6 limit, $7 step in seconds
-- CPU is weighted by the time each sample looks back on; levels are the highest, counters as they stood last.
WITH looks AS (
    SELECT
        *, coalesce(extract(epoch FROM sampled_at - lag(sampled_at) OVER (PARTITION BY node ORDER BY sampled_at)), 1)
            ::double precision AS weight
    FROM job_samples
    WHERE job_id = $2 AND cluster_name = $1 AND sampled_at >= $4 AND sampled_at < $5 AND opened_by = ANY ($3::uuid[])
)
SELECT
    date_bin(make_interval(secs => $7::integer), sampled_at, 'epoch') AS sampled_at,
    node,
    count(*) AS samples,
    sum(cpu_percent * weight) / nullif(sum(weight) FILTER (WHERE cpu_percent IS NOT NULL), 0) AS cpu_percent,
    max(cpu_seconds) AS cpu_seconds,
    max(cpu_user_seconds) AS cpu_user_seconds,
    max(cpu_system_seconds) AS cpu_system_seconds,
    max(cpu_throttled_seconds) AS cpu_throttled_seconds,
    max(memory_current_bytes) AS memory_current_bytes,
    max(memory_peak_bytes) AS memory_peak_bytes,
    max(memory_limit_bytes) AS memory_limit_bytes,
    max(memory_rss_bytes) AS memory_rss_bytes,
    max(memory_cache_bytes) AS memory_cache_bytes,
    max(memory_shmem_bytes) AS memory_shmem_bytes,
    max(oom_kills) AS oom_kills,
    max(io_read_bytes) AS io_read_bytes,
    max(io_write_bytes) AS io_write_bytes,
    max(processes) AS processes,
    max(threads) AS threads,
    max(pressure_cpu_some_seconds) AS pressure_cpu_some_seconds,
    max(pressure_memory_some_seconds) AS pressure_memory_some_seconds,
    max(pressure_io_some_seconds) AS pressure_io_some_seconds
FROM looks
GROUP BY 1, 2
ORDER BY 1, 2
LIMIT $6::bigint
