-- Rows of jobs and jobs_withdrawn, and runs in job_nodes and job_gpus, that no event of the trail speaks of, or spoke of.
SELECT cluster_name, job_id, run FROM (
    SELECT cluster_name, job_id, run FROM jobs
    UNION
    SELECT cluster_name, job_id, run FROM jobs_withdrawn
    UNION
    SELECT cluster_name, job_id, run FROM job_nodes
    UNION
    SELECT cluster_name, job_id, run FROM job_gpus
) AS held
WHERE NOT EXISTS (
    SELECT FROM audit_log l
    WHERE l.job_id = held.job_id AND l.cluster_name = held.cluster_name AND l.run = held.run
) AND NOT EXISTS (
    SELECT FROM audit_removed_run r
    WHERE r.job_id = held.job_id AND r.cluster_name = held.cluster_name AND r.run = held.run
)
ORDER BY cluster_name, job_id, run
