-- Joules of some nodes of a run, thinned out. $1 cluster, $2 job id, $3 openers, $4 begin, $5 end, $6 points, $7 nodes
-- Sums over the nodes of what each row says beyond the one before; what was used in a gap counts where it was seen.
WITH looks AS (
    SELECT
        s.node, s.sampled_at, c.component, c.joules - lag(c.joules, 1, 0) OVER of_node AS used,
        extract(epoch FROM s.sampled_at - lag(s.sampled_at) OVER of_node)::double precision AS step
    FROM energy_samples s
    CROSS JOIN LATERAL (
        VALUES ('gpu', s.gpu_joules), ('cpu', s.cpu_joules), ('dram', s.dram_joules)
    ) AS c (component, joules)
    WHERE s.job_id = $2 AND s.cluster_name = $1 AND s.sampled_at BETWEEN $4::timestamptz - interval '1 minute' AND $5::timestamptz + interval '1 minute'
      AND s.opened_by = ANY ($3::uuid[]) AND s.node = ANY ($7::text[]) AND c.joules IS NOT NULL
    WINDOW of_node AS (PARTITION BY s.node, c.component ORDER BY s.sampled_at)
),
usual AS (
    SELECT component, percentile_cont(0.5) WITHIN GROUP (ORDER BY step) AS step FROM looks GROUP BY component
),
stepped AS (
    SELECT *, lag(step) OVER (PARTITION BY node, component ORDER BY sampled_at) AS step_before FROM looks
),
thinned AS (
    SELECT
        l.component,
        extract(epoch FROM max(l.sampled_at) - $4)::double precision AS seconds,
        coalesce(bool_or(
            l.step > greatest(20, 3 * u.step, 2.2 * least(coalesce(l.step_before, 0), 120))
        ), false) AS gap,
        sum(l.used) AS used
    FROM stepped l JOIN usual u USING (component)
    GROUP BY l.component, width_bucket(
        extract(epoch FROM l.sampled_at - $4)::double precision, 0,
        extract(epoch FROM $5::timestamptz - $4)::double precision, $6::integer
    )
)
SELECT component, seconds, gap, sum(used) OVER (PARTITION BY component ORDER BY seconds) AS joules
FROM thinned
ORDER BY component, seconds
