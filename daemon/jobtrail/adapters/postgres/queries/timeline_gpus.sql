-- Some GPUs of a run, thinned out. $1 cluster, $2 job id, $3 openers, $4 begin, $5 end, $6 points, $7 their nodes, $8 GPUs
-- A gap is told as in timeline_nodes.
WITH looks AS (
    SELECT
        node, gpu_id, sampled_at, utilization_percent, memory_used_bytes, memory_total_bytes, power_watts,
        extract(epoch FROM sampled_at - lag(sampled_at) OVER of_gpu)::double precision AS step
    FROM gpu_samples
    WHERE job_id = $2 AND cluster_name = $1 AND sampled_at BETWEEN $4::timestamptz - interval '1 minute' AND $5::timestamptz + interval '1 minute'
      AND opened_by = ANY ($3::uuid[]) AND (node, gpu_id) IN (SELECT * FROM unnest($7::text[], $8::text[]))
    WINDOW of_gpu AS (PARTITION BY node, gpu_id ORDER BY sampled_at)
),
usual AS (
    SELECT node, gpu_id, percentile_cont(0.5) WITHIN GROUP (ORDER BY step) AS step FROM looks GROUP BY node, gpu_id
),
stepped AS (
    SELECT *, lag(step) OVER (PARTITION BY node, gpu_id ORDER BY sampled_at) AS step_before FROM looks
)
SELECT
    l.node,
    l.gpu_id,
    extract(epoch FROM max(l.sampled_at) - $4)::double precision AS seconds,
    coalesce(bool_or(
        l.step > greatest(20, 3 * u.step, 2.2 * least(coalesce(l.step_before, 0), 120))
    ), false) AS gap,
    sum(l.utilization_percent * coalesce(l.step, 1))
        / nullif(sum(coalesce(l.step, 1)) FILTER (WHERE l.utilization_percent IS NOT NULL), 0) AS utilization_percent,
    max(l.memory_used_bytes) AS memory_bytes,
    max(l.memory_total_bytes) AS memory_total_bytes,
    sum(l.power_watts * coalesce(l.step, 1))
        / nullif(sum(coalesce(l.step, 1)) FILTER (WHERE l.power_watts IS NOT NULL), 0) AS power_watts
FROM stepped l JOIN usual u USING (node, gpu_id)
GROUP BY l.node, l.gpu_id, width_bucket(
    extract(epoch FROM l.sampled_at - $4)::double precision, 0, extract(epoch FROM $5::timestamptz - $4)::double precision, $6::integer
)
ORDER BY l.node, l.gpu_id, seconds
