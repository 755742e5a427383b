-- How well a run used what it had, and how much of it that covers. $1 cluster, $2 job id, $3 run
SELECT
    elapsed_seconds, cpu_efficiency, memory_efficiency, coverage_ratio, sample_count, nodes_reporting, nodes_total,
    gpu_efficiency, gpu_unused_ratio, gpu_coverage_ratio
FROM job_efficiency
WHERE cluster_name = $1 AND job_id = $2 AND run = $3
