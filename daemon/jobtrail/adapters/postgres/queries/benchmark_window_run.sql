-- What is known of a run beside its samples. $1 cluster, $2 job id, $3 run
-- It is over half a minute after its end was stored: its last samples take another way, and are stored by then.
SELECT
    ARRAY(
        SELECT node FROM unnest(j.nodes) AS named (node) UNION
        SELECT n.node FROM job_nodes n WHERE (n.cluster_name, n.job_id, n.run) = (j.cluster_name, j.job_id, j.run)
        ORDER BY node
    ) AS nodes,
    coalesce(j.gpus_allocated, 0) > 0 OR EXISTS (
        SELECT FROM job_gpus g WHERE (g.cluster_name, g.job_id, g.run) = (j.cluster_name, j.job_id, j.run)
    ) AS has_gpus,
    j.end_time IS NOT NULL AND greatest(j.end_time, j.updated_at) < now() - interval '30 seconds' AS is_over,
    j.pue, j.emission_factor_grams_per_kwh, j.emission_factor_source, j.emission_factor_year
FROM jobs j
WHERE (j.cluster_name, j.job_id, j.run) = ($1, $2, $3)
