-- Rows of job_gpus that differ from what the trail gives; one the trail does not know has expected NULL. $1 clusters, $2 job ids, $3 runs, $4 JSON array of rows
WITH expected AS (
    SELECT e.cluster_name, e.job_id, e.run, e.node, e.gpu_id, to_jsonb(e) - 'updated_at' AS content
    FROM jsonb_populate_recordset(NULL::job_gpus, $4::jsonb) e
), stored AS (
    SELECT g.cluster_name, g.job_id, g.run, g.node, g.gpu_id, to_jsonb(g) - 'updated_at' AS content
    FROM unnest($1::text[], $2::text[], $3::integer[]) AS wanted (cluster_name, job_id, run)
    JOIN job_gpus g USING (cluster_name, job_id, run)
)
SELECT cluster_name, job_id, run, node, gpu_id, stored.content AS stored, expected.content AS expected
FROM expected FULL JOIN stored USING (cluster_name, job_id, run, node, gpu_id)
WHERE stored.content IS DISTINCT FROM expected.content
ORDER BY cluster_name, job_id, run, node, gpu_id
