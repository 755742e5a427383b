-- What a run had of GPUs, by node. $1 cluster, $2 job id, $3 run
SELECT node, gpu_id, vendor, minor, name, memory_total_bytes, resolved_by, observed_seconds, busy_seconds, unused_seconds,
       utilization_mean_percent, memory_peak_bytes, energy_joules, energy_coverage_ratio, energy_method, errors,
       attribution_mismatch
FROM job_gpus
WHERE cluster_name = $1 AND job_id = $2 AND run = $3
ORDER BY node, minor NULLS LAST, gpu_id
