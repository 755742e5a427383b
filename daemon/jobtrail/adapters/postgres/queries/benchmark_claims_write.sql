-- Write the jobs that runs claim, none of them checked yet. $1 JSON array of rows of benchmark_run_job
INSERT INTO benchmark_run_job (run_uid, position, role, link_state, link_source, cluster_name, job_id, step_id, node_list)
SELECT run_uid, position, role, link_state, link_source, cluster_name, job_id, step_id, node_list
FROM jsonb_populate_recordset(NULL::benchmark_run_job, $1::jsonb)
