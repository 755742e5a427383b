-- Samples of a run's GPUs, a row a step in which there are any. $1 cluster, $2 job id, $3 openers, $4 begin, $5 end, $6 limit, $7 step in seconds
-- Utilisation and power are weighted by the time each sample looks back on; the energy counter is as it stood last.
WITH looks AS (
    SELECT
        *, coalesce(extract(epoch FROM sampled_at - lag(sampled_at) OVER (PARTITION BY node, gpu_id ORDER BY sampled_at)), 1)
            ::double precision AS weight
    FROM gpu_samples
    WHERE job_id = $2 AND cluster_name = $1 AND sampled_at >= $4 AND sampled_at < $5 AND opened_by = ANY ($3::uuid[])
)
SELECT
    date_bin(make_interval(secs => $7::integer), sampled_at, 'epoch') AS sampled_at,
    node,
    gpu_id,
    count(*) AS samples,
    sum(utilization_percent * weight) / nullif(sum(weight) FILTER (WHERE utilization_percent IS NOT NULL), 0)
        AS utilization_percent,
    max(memory_used_bytes) AS memory_used_bytes,
    max(memory_total_bytes) AS memory_total_bytes,
    sum(power_watts * weight) / nullif(sum(weight) FILTER (WHERE power_watts IS NOT NULL), 0) AS power_watts,
    (array_agg(energy_joules ORDER BY looks.sampled_at DESC) FILTER (WHERE energy_joules IS NOT NULL))[1] AS energy_joules,
    max(temperature_celsius) AS temperature_celsius,
    sum(sm_active_percent * weight) / nullif(sum(weight) FILTER (WHERE sm_active_percent IS NOT NULL), 0)
        AS sm_active_percent,
    sum(tensor_active_percent * weight) / nullif(sum(weight) FILTER (WHERE tensor_active_percent IS NOT NULL), 0)
        AS tensor_active_percent,
    sum(dram_active_percent * weight) / nullif(sum(weight) FILTER (WHERE dram_active_percent IS NOT NULL), 0)
        AS dram_active_percent
FROM looks
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
LIMIT $6::bigint
