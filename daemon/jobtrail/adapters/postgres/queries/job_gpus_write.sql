-- Write what runs had of GPUs as it is now. $1 JSON array of rows of job_gpus
INSERT INTO job_gpus (
    cluster_name, job_id, run, node, gpu_id, vendor, minor, name, memory_total_bytes, resolved_by,
    observed_seconds, busy_seconds, unused_seconds, utilization_mean_percent, memory_peak_bytes, energy_joules,
    energy_covered_seconds, energy_coverage_ratio, energy_method, errors, attribution_mismatch
)
SELECT
    cluster_name, job_id, run, node, gpu_id, vendor, minor, name, memory_total_bytes, resolved_by,
    observed_seconds, busy_seconds, unused_seconds, utilization_mean_percent, memory_peak_bytes, energy_joules,
    energy_covered_seconds, energy_coverage_ratio, energy_method, errors, attribution_mismatch
FROM jsonb_populate_recordset(NULL::job_gpus, $1::jsonb)
ON CONFLICT (cluster_name, job_id, run, node, gpu_id) DO UPDATE SET (
    vendor, minor, name, memory_total_bytes, resolved_by, observed_seconds, busy_seconds, unused_seconds,
    utilization_mean_percent, memory_peak_bytes, energy_joules, energy_covered_seconds, energy_coverage_ratio,
    energy_method, errors, attribution_mismatch, updated_at
) = (
    EXCLUDED.vendor, EXCLUDED.minor, EXCLUDED.name, EXCLUDED.memory_total_bytes, EXCLUDED.resolved_by,
    EXCLUDED.observed_seconds, EXCLUDED.busy_seconds, EXCLUDED.unused_seconds,
    EXCLUDED.utilization_mean_percent, EXCLUDED.memory_peak_bytes, EXCLUDED.energy_joules,
    EXCLUDED.energy_covered_seconds, EXCLUDED.energy_coverage_ratio, EXCLUDED.energy_method, EXCLUDED.errors,
    EXCLUDED.attribution_mismatch, now()
)
