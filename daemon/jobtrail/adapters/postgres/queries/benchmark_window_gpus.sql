-- A run's GPUs, as its nodes reported them. $1 cluster, $2 job id, $3 run
SELECT node, gpu_id
FROM job_gpus
WHERE (cluster_name, job_id, run) = ($1, $2, $3) AND resolved_by IS NOT NULL
