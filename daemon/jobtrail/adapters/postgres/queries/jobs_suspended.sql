-- Running jobs that Slurm last called suspended, or stopped by SIGSTOP, newest first. $1 rows at most
SELECT cluster_name, job_id FROM jobs
WHERE state = 'running' AND raw_state IN ('SUSPENDED', 'STOPPED')
ORDER BY start_time DESC, cluster_name, job_id LIMIT $1::bigint
