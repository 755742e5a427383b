-- Runs that Slurm is to be asked about now, newest first. $1 cluster, $2 limit
SELECT projection
FROM jobs
WHERE cluster_name = $1
    AND awaits IN ('facts', 'outcome', 'usage')
    AND coalesce(end_time, start_time, updated_at) > now() - interval '7 days'
ORDER BY coalesce(end_time, start_time) DESC
LIMIT $2
