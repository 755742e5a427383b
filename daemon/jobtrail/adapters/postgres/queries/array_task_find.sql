-- The job id of a task of an array, the newest where ids were used again. $1 array's job id, $2 task, $3 cluster; NULL is any
SELECT job_id
FROM jobs
WHERE array_job_id = $1 AND array_task_id = $2::bigint AND ($3::text IS NULL OR cluster_name = $3)
ORDER BY coalesce(start_time, submit_time, end_time) DESC NULLS LAST, cluster_name
LIMIT 1
