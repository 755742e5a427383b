-- 20,000 runs of 40 series with their jobs, links, numbers and verdicts.
INSERT INTO benchmark_run (
    run_uid, cluster_name, node, recipe_name, recipe_sha256, mode, tool, model, parameters, fingerprint,
    fingerprint_without_version, fingerprint_parts, hardware, gpu_count, gpus, started_at, ended_at, status, error_rate,
    repeats, measured, notes, gates, claims, argv, files, raw, report_sha256, user_name, from_job, event_id, reported_at, judged_at,
    settled_at, counts
)
SELECT gen_random_uuid(), 'c1', 'n1', 'recipe' || n % 10, repeat('a', 64), 'serve', 'vllm', 'model' || n % 20, '{}',
       md5((n % 40)::text), 'x', '{}', left(md5((n % 40)::text), 8), 1, '{}', '2026-01-01'::timestamptz + n * interval '10 min',
       '2026-01-01'::timestamptz + n * interval '10 min' + interval '1 min',
       CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'ok' END, 0, 1, '{}', '{}', '{}', '[]', '{}', '[]', '[]', n::text,
       'user' || n % 30, true, gen_random_uuid(), now(), now(), now(), true
FROM generate_series(1, 20000) AS n;
INSERT INTO jobs (cluster_name, job_id, run, user_name, state, correlation_id, projection)
SELECT 'c1', 'slurm-' || report_sha256, 1, user_name, 'completed', gen_random_uuid(), '{}' FROM benchmark_run;
INSERT INTO benchmark_run_job (run_uid, position, role, link_state, link_source, cluster_name, job_id, run)
SELECT run_uid, 0, 'both', 'linked', 'manifest', 'c1', 'slurm-' || report_sha256, 1 FROM benchmark_run;
INSERT INTO benchmark_metric (run_uid, repeat, metric, stat, value)
SELECT run_uid, repeat, metric, stat, 100 + random() FROM benchmark_run
CROSS JOIN generate_series(0, 1) AS repeat
CROSS JOIN (VALUES ('output_token_throughput', 'value'), ('request_throughput', 'value'), ('time_to_first_token', 'p50'),
                   ('time_to_first_token', 'p99'), ('time_per_output_token', 'p50'), ('request_latency', 'p50'),
                   ('inter_token_latency', 'p50'), ('total_token_throughput', 'value')) AS m (metric, stat);
INSERT INTO benchmark_energy (run_uid, time_window, domain, joules, method, coverage)
SELECT run_uid, 'bench', domain, 100, 'counter', 1 FROM benchmark_run CROSS JOIN unnest(ARRAY['gpu', 'total']) AS domain;
INSERT INTO benchmark_verdict (run_uid, metric, stat, verdict, advisory, baseline_n, relative_change, rule_version)
SELECT run_uid, 'output_token_throughput', 'value', CASE WHEN report_sha256::integer % 100 = 7 THEN 'regression' ELSE 'ok' END,
       false, 10, 0, 1 FROM benchmark_run;
INSERT INTO benchmark_decision (run_uid, event_id, decision, decided_at, decided_by)
SELECT run_uid, gen_random_uuid(), 'accept', now(), 'ada' FROM benchmark_run WHERE report_sha256::integer % 100 = 7;
UPDATE benchmark_run SET recipe_name = 'rare' WHERE report_sha256::integer % 1000 = 1;
