-- Runs that are not over, newest first. $1 cluster, $2 limit
SELECT projection
FROM jobs
WHERE cluster_name = $1 AND awaits IN ('facts', 'end')
ORDER BY start_time DESC
LIMIT $2
