-- The benchmarks that a run of a job ran, oldest first. $1 cluster, $2 job id, $3 run
SELECT r.run_uid, r.recipe_name, r.mode, r.tool, r.model, r.status, r.invalid_reason, r.started_at, r.ended_at, k.role
FROM benchmark_run_job AS k
JOIN benchmark_run AS r ON r.run_uid = k.run_uid
WHERE k.job_id = $2 AND k.cluster_name = $1 AND k.run = $3 AND k.link_state = 'linked'
ORDER BY r.started_at, r.run_uid
