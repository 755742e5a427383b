-- CPU and memory of some nodes of a run, thinned out. $1 cluster, $2 job id, $3 openers, $4 begin, $5 end, $6 points, $7 nodes
-- A gap is a step of more than 20 s, three usual ones and twice the one before: at a run's begin, looks are ever farther apart.
WITH looks AS (
    SELECT
        node, sampled_at, cpu_percent, memory_current_bytes, memory_limit_bytes,
        extract(epoch FROM sampled_at - lag(sampled_at) OVER of_node)::double precision AS step
    FROM job_samples
    WHERE job_id = $2 AND cluster_name = $1 AND sampled_at BETWEEN $4::timestamptz - interval '1 minute' AND $5::timestamptz + interval '1 minute'
      AND opened_by = ANY ($3::uuid[]) AND node = ANY ($7::text[])
    WINDOW of_node AS (PARTITION BY node ORDER BY sampled_at)
),
usual AS (
    SELECT node, percentile_cont(0.5) WITHIN GROUP (ORDER BY step) AS step FROM looks GROUP BY node
),
stepped AS (
    SELECT *, lag(step) OVER (PARTITION BY node ORDER BY sampled_at) AS step_before FROM looks
)
SELECT
    l.node,
    extract(epoch FROM max(l.sampled_at) - $4)::double precision AS seconds,
    coalesce(bool_or(
        l.step > greatest(20, 3 * u.step, 2.2 * least(coalesce(l.step_before, 0), 120))
    ), false) AS gap,
    sum(l.cpu_percent * coalesce(l.step, 1)) / nullif(sum(coalesce(l.step, 1)) FILTER (WHERE l.cpu_percent IS NOT NULL), 0)
        AS cpu_percent,
    max(l.memory_current_bytes) AS memory_bytes,
    max(l.memory_limit_bytes) AS memory_limit_bytes
FROM stepped l JOIN usual u USING (node)
GROUP BY l.node, width_bucket(
    extract(epoch FROM l.sampled_at - $4)::double precision, 0, extract(epoch FROM $5::timestamptz - $4)::double precision, $6::integer
)
ORDER BY l.node, seconds
