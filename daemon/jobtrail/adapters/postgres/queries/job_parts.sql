-- The runs of some jobs, and whether a node has a part in each. $1: cluster names, $2: job ids, $3: node.
-- Of a run in which it has one no more is needed.
SELECT j.cluster_name, j.job_id, n.node IS NOT NULL AS has_part, CASE WHEN n.node IS NULL THEN j.projection END AS projection
FROM unnest($1::text[], $2::text[]) AS wanted (cluster_name, job_id)
JOIN jobs j ON j.cluster_name = wanted.cluster_name AND j.job_id = wanted.job_id
LEFT JOIN job_nodes n
    ON n.cluster_name = j.cluster_name AND n.job_id = j.job_id AND n.run = j.run AND n.node = $3
