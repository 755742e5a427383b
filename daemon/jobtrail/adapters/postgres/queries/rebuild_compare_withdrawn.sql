-- Rows of jobs_withdrawn that differ from what the trail gives, and withdrawn runs that are in jobs all the same; one the trail does not know has expected NULL. $1 clusters, $2 job ids, $3 runs, $4 JSON array of rows
WITH expected AS (
    SELECT e.cluster_name, e.job_id, e.run, to_jsonb(e) - 'stored_at' AS content
    FROM jsonb_populate_recordset(NULL::jobs_withdrawn, $4::jsonb) e
), stored AS (
    SELECT w.cluster_name, w.job_id, w.run, to_jsonb(w) - 'stored_at' AS content
    FROM unnest($1::text[], $2::text[], $3::integer[]) AS wanted (cluster_name, job_id, run)
    JOIN jobs_withdrawn w USING (cluster_name, job_id, run)
)
SELECT cluster_name, job_id, run, 'withdrawn.' AS prefix, stored.content AS stored, expected.content AS expected
FROM expected FULL JOIN stored USING (cluster_name, job_id, run)
WHERE stored.content IS DISTINCT FROM expected.content
UNION ALL
SELECT j.cluster_name, j.job_id, j.run, '', to_jsonb(j), NULL
FROM expected e JOIN jobs j USING (cluster_name, job_id, run)
ORDER BY cluster_name, job_id, run
