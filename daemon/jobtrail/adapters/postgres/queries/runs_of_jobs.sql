-- All runs of some jobs, oldest first. $1 cluster, $2 job ids
SELECT projection
FROM jobs
WHERE cluster_name = $1 AND job_id = ANY ($2::text[])
ORDER BY run
