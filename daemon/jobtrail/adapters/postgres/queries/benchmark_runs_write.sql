-- Write runs of benchmarks that are not held. $1 JSON array of rows of benchmark_run
INSERT INTO benchmark_run (
    run_uid, cluster_name, node, recipe_name, recipe_sha256, mode, tool, tool_version, model, model_revision,
    parameters, fingerprint, fingerprint_without_version, fingerprint_parts, hardware, gpu_model, gpu_count,
    mig_profile, driver_version, cpu_model, cpu_count, gpus, power_limit_watts, max_clock_mhz, started_at,
    ended_at, status, invalid_reason, error_rate, repeats, measured, output_tokens, server_output_tokens,
    token_count_source, notes, gates, claims, argv, files, raw, report_sha256, uid, user_name, from_job,
    event_id, reported_at, counts
)
SELECT
    run_uid, cluster_name, node, recipe_name, recipe_sha256, mode, tool, tool_version, model, model_revision,
    parameters, fingerprint, fingerprint_without_version, fingerprint_parts, hardware, gpu_model, gpu_count,
    mig_profile, driver_version, cpu_model, cpu_count, gpus, power_limit_watts, max_clock_mhz, started_at,
    ended_at, status, invalid_reason, error_rate, repeats, measured, output_tokens, server_output_tokens,
    token_count_source, notes, gates, claims, argv, files, raw, report_sha256, uid, user_name, from_job,
    event_id, reported_at, counts
FROM jsonb_populate_recordset(NULL::benchmark_run, $1::jsonb)
