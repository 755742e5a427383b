-- Rows of jobs that differ from what the trail gives, a missing one as NULL. $1 JSON array of rows as the trail gives them
SELECT e.cluster_name, e.job_id, e.run,
       to_jsonb(j) - 'updated_at' AS stored, to_jsonb(e) - 'updated_at' AS expected
FROM jsonb_populate_recordset(NULL::jobs, $1::jsonb) e
LEFT JOIN jobs j ON j.cluster_name = e.cluster_name AND j.job_id = e.job_id AND j.run = e.run
WHERE (to_jsonb(j) - 'updated_at') IS DISTINCT FROM (to_jsonb(e) - 'updated_at')
ORDER BY e.cluster_name, e.job_id, e.run
