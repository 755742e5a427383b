-- Write the jobs of a run as they were found. $1 JSON array of rows of benchmark_run_job
INSERT INTO benchmark_run_job (
    run_uid, position, role, link_state, link_source, cluster_name, job_id, run, reason, step_id, node_list
)
SELECT run_uid, position, role, link_state, link_source, cluster_name, job_id, run, reason, step_id, node_list
FROM jsonb_populate_recordset(NULL::benchmark_run_job, $1::jsonb)
