-- Rows of job_nodes that differ from what the trail gives; one the trail does not know has expected NULL. $1 clusters, $2 job ids, $3 runs, $4 JSON array of rows
WITH expected AS (
    SELECT e.cluster_name, e.job_id, e.run, e.node, to_jsonb(e) - 'updated_at' AS content
    FROM jsonb_populate_recordset(NULL::job_nodes, $4::jsonb) e
), stored AS (
    SELECT n.cluster_name, n.job_id, n.run, n.node, to_jsonb(n) - 'updated_at' AS content
    FROM unnest($1::text[], $2::text[], $3::integer[]) AS wanted (cluster_name, job_id, run)
    JOIN job_nodes n USING (cluster_name, job_id, run)
)
SELECT cluster_name, job_id, run, node, stored.content AS stored, expected.content AS expected
FROM expected FULL JOIN stored USING (cluster_name, job_id, run, node)
WHERE stored.content IS DISTINCT FROM expected.content
ORDER BY cluster_name, job_id, run, node
