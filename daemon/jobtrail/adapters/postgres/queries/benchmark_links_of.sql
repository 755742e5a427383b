-- The jobs of runs. $1 uids
SELECT run_uid::text, role, link_state, link_source, cluster_name, job_id, run, reason, step_id, node_list
FROM benchmark_run_job WHERE run_uid = ANY ($1::text[]::uuid[]) ORDER BY run_uid, position
