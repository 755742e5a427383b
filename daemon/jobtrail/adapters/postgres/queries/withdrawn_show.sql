-- The withdrawn runs of a job, newest first. $1 job id, $2 run, $3 cluster; NULL is any
SELECT cluster_name, job_id, run, withdrawn_at, withdrawn_by, projection
FROM jobs_withdrawn
WHERE job_id = $1 AND ($2::integer IS NULL OR run = $2) AND ($3::text IS NULL OR cluster_name = $3)
ORDER BY withdrawn_at DESC, run DESC, cluster_name
