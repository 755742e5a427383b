-- 5,000 benchmark runs of a year in 40 series, linked to jobs, with numbers, energy, verdicts and decisions.
CREATE UNLOGGED TABLE volume_run AS
SELECT k.n, CASE k.n WHEN 4990 THEN '6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21' ELSE gen_random_uuid() END::uuid AS run_uid,
       md5((k.n % 40)::text) || md5((k.n % 40)::text) AS fingerprint, j.job_id, j.user_name, j.start_time
FROM volume_job j CROSS JOIN LATERAL (SELECT j.n / 10 AS n) AS k WHERE j.n % 10 = 0;
INSERT INTO benchmark_run (
    run_uid, cluster_name, node, recipe_name, recipe_sha256, mode, tool, model, parameters, fingerprint,
    fingerprint_without_version, fingerprint_parts, hardware, gpu_model, gpu_count, gpus, started_at, ended_at, status,
    error_rate, repeats, measured, notes, gates, claims, argv, files, raw, report_sha256, user_name, from_job, event_id,
    reported_at, judged_at, settled_at, counts
)
SELECT run_uid, 'c1', 'n001', CASE n % 10 WHEN 3 THEN 'llama8b-chat' ELSE 'recipe' || n % 10 END, repeat('a', 64), 'serve',
       'vllm', 'model' || n % 20, '{}', fingerprint, 'x', '{}', left(fingerprint, 8), 'H100', 1, '{}',
       start_time, start_time + interval '1 min', CASE WHEN n % 50 = 0 AND n < 5000 THEN 'failed' ELSE 'ok' END, 0, 1, '{}', '{}', '{}',
       '[]', '{}', '[]', '[]', run_uid::text, user_name, true, gen_random_uuid(), start_time, now(), now(), true
FROM volume_run;
INSERT INTO benchmark_run_job (run_uid, position, role, link_state, link_source, cluster_name, job_id, run)
SELECT run_uid, 0, 'both', 'linked', 'manifest', 'c1', job_id, 1 FROM volume_run;
INSERT INTO benchmark_metric (run_uid, repeat, metric, stat, value)
SELECT run_uid, repeat, metric, stat, 100 + random() FROM volume_run
CROSS JOIN generate_series(0, 1) AS repeat
CROSS JOIN (VALUES ('output_token_throughput', 'value'), ('request_throughput', 'value'), ('time_to_first_token', 'p50'),
                   ('time_to_first_token', 'p99'), ('time_per_output_token', 'p50'), ('request_latency', 'p50'),
                   ('output_tokens_per_joule', 'value'), ('total_token_throughput', 'value')) AS m (metric, stat);
INSERT INTO benchmark_energy (run_uid, time_window, domain, joules, method, coverage)
SELECT run_uid, part, domain, 100, 'counter', 1 FROM volume_run
CROSS JOIN unnest(ARRAY['gpu', 'total']) AS domain CROSS JOIN unnest(ARRAY['bench', 'job']) AS part;
-- The last of all is one, so that there is one on the first day of a month too.
INSERT INTO benchmark_verdict (run_uid, metric, stat, verdict, advisory, baseline_n, relative_change, rule_version)
SELECT run_uid, 'output_token_throughput', 'value', CASE WHEN n % 20 = 7 OR n = 5000 THEN 'regression' ELSE 'ok' END, false,
       10, -0.1, 1
FROM volume_run;
INSERT INTO benchmark_decision (run_uid, event_id, decision, decided_at, decided_by)
SELECT run_uid, gen_random_uuid(), 'accept', start_time, 'alice' FROM volume_run WHERE n % 100 = 7;
