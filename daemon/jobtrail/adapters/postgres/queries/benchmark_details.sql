-- What was reported of a run beside its numbers. $1 uid
SELECT r.node, r.parameters, r.fingerprint_parts, r.fingerprint_without_version, r.gpus, r.power_limit_watts,
       r.max_clock_mhz, r.argv, r.files, r.claims, r.gates, r.server_output_tokens, r.uid, r.from_job, r.event_id,
       r.looked_at, r.judged_at, c.body AS recipe_body, r.raw
FROM benchmark_run r
LEFT JOIN benchmark_recipe c ON c.name = r.recipe_name AND c.sha256 = r.recipe_sha256
WHERE r.run_uid = $1::text::uuid
