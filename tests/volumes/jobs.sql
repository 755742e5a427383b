-- 50,000 runs of a year on 250 nodes, with their nodes, GPUs and energy; 30 that wait.
-- Chosen so that the examples in docs/sql.md are of somebody: alice, the account physics, slurm-123 and its
-- correlation id, the recipe llama8b-chat.
SELECT setseed(0.5);
CREATE UNLOGGED TABLE volume_job AS
WITH drawn AS (
    SELECT n, random() AS r1, random() AS r2, random() AS r3, random() AS r4, random() AS r5,
           floor(200 * power(random(), 3))::integer AS person,
           now() - interval '365 days' * ((50000 - n) / 50000.0) AS start_time,
           least(interval '60 s' + interval '8 hours' * -ln(1 - random()), interval '5 days') AS lasts,
           interval '2 hours' * power(random(), 4) AS waited
    FROM generate_series(1, 50000) AS n
), shaped AS (
    SELECT *, CASE WHEN r1 < 0.60 THEN 'cpu' WHEN r1 < 0.85 THEN 'gpu' WHEN r1 < 0.95 THEN 'long' ELSE 'debug' END AS partition,
           CASE WHEN n = 49900 THEN 2 WHEN r2 < 0.55 THEN 1 WHEN r2 < 0.70 THEN 2 WHEN r2 < 0.82 THEN 4 WHEN r2 < 0.93 THEN 8
                ELSE 16 END AS node_count
    FROM drawn
)
SELECT n, CASE n WHEN 49900 THEN 'slurm-123' ELSE 'slurm-' || 100000 + n END AS job_id,
       CASE WHEN n = 49900 THEN 'alice' ELSE CASE person WHEN 3 THEN 'alice' ELSE 'user' || person END END AS user_name,
       1000 + person AS uid,
       CASE person % 25 WHEN 3 THEN 'physics' ELSE 'account' || person % 25 END AS account,
       CASE n WHEN 49900 THEN 'gpu' ELSE partition END AS partition, start_time - waited AS submit_time, start_time,
       CASE WHEN start_time + lasts < now() THEN start_time + lasts END AS end_time, node_count,
       node_count * (ARRAY[4, 8, 16, 32])[1 + floor(4 * r3)::integer] AS cpus,
       CASE WHEN n = 49900 OR partition = 'gpu' THEN node_count * (1 + floor(4 * r3)::integer) END AS gpus,
       (SELECT array_agg('n' || lpad((1 + (n * 7 + k) % 250)::text, 3, '0') ORDER BY k)
        FROM generate_series(1, node_count) AS k) AS nodes,
       CASE WHEN r4 < 0.80 THEN 'completed' WHEN r4 < 0.88 THEN 'failed' WHEN r4 < 0.94 THEN 'cancelled'
            WHEN r4 < 0.96 THEN 'timeout' WHEN r4 < 0.97 THEN 'out_of_memory' WHEN r4 < 0.975 THEN 'node_fail'
            WHEN r4 < 0.98 THEN 'preempted' ELSE 'unknown' END AS verdict,
       r3, r5, CASE n WHEN 49900 THEN '0b6ad1a2-6f3f-4a52-9d5e-0f1f5c2f7a10' ELSE gen_random_uuid() END::uuid AS correlation_id
FROM shaped;

INSERT INTO jobs (
    cluster_name, job_id, run, user_name, uid, account, partition, qos, job_name, nodes, node_list, state, raw_state,
    state_confirmed, exit_code, verdict, verdict_evidence, submit_time, start_time, end_time, end_inferred, end_not_before,
    nodes_started, nodes_ended, nodes_reporting, nodes_total, cpus_allocated, gpus_allocated, memory_limit_bytes,
    time_limit_seconds, cpu_seconds, memory_peak_bytes, oom_kills, out_of_memory_step, gpu_seconds, gpu_busy_seconds,
    gpu_unused_seconds, energy_joules, energy_gpu_joules, energy_cpu_joules, energy_covered_seconds,
    energy_coverage_ratio, energy_method, emissions_grams, usage_absent, coverage_ratio, sample_count, last_sample_at,
    outcome_source, awaits, correlation_id, updated_at, projection
)
SELECT 'c1', job_id, 1, user_name, uid, account, partition, 'normal', 'train-' || n % 40, nodes, nodes[1],
       CASE WHEN end_time IS NULL THEN 'running' WHEN verdict = 'completed' THEN 'completed'
            WHEN verdict IN ('cancelled', 'preempted') THEN 'cancelled' WHEN verdict = 'unknown' THEN 'ended' ELSE 'failed' END,
       upper(verdict), over AND verdict <> 'unknown', CASE WHEN over AND verdict = 'failed' THEN 1 WHEN over THEN 0 END,
       CASE WHEN over THEN verdict END,
       CASE WHEN over AND verdict = 'cancelled' THEN jsonb_build_object('slurm', jsonb_build_object('slurmdbd', jsonb_build_object(
                'state', 'CANCELLED', 'cancelled_by_uid', CASE WHEN r5 < 0.7 THEN uid WHEN r5 < 0.9 THEN 0 ELSE 1001 END)))
            WHEN over THEN '{"run_seconds": 1}' END,
       submit_time, start_time, end_time, over AND verdict = 'node_fail',
       CASE WHEN over AND verdict = 'node_fail' THEN end_time - interval '5 min' END,
       node_count, CASE WHEN over THEN node_count ELSE 0 END, node_count, node_count, cpus, gpus, node_count * 64 * 1024 ^ 3,
       172800, cpus * seconds * r3, (node_count * 64 * 1024 ^ 3 * (0.05 + 0.9 * r5))::bigint,
       CASE WHEN verdict = 'out_of_memory' THEN 1 ELSE 0 END, verdict = 'out_of_memory', gpus * seconds,
       gpus * seconds * r5, gpus * seconds * CASE WHEN r5 < 0.1 THEN 1 - r5 ELSE 0 END,
       CASE WHEN r3 < 0.9 THEN cpus * seconds * 5 + coalesce(gpus, 0) * seconds * 250 END,
       CASE WHEN r3 < 0.9 THEN gpus * seconds * 250 END, CASE WHEN r3 < 0.9 THEN cpus * seconds * 5 END,
       CASE WHEN r3 < 0.9 THEN node_count * seconds END, CASE WHEN r3 < 0.9 AND over THEN 0.8 + 0.2 * r5 END,
       CASE WHEN r3 < 0.9 THEN 'counter' END,
       CASE WHEN r3 < 0.8 THEN (cpus * seconds * 5 + coalesce(gpus, 0) * seconds * 250) / 3.6e6 * 380 END,
       CASE WHEN r3 >= 0.9 THEN '{"energy": "no counter"}'::jsonb END, CASE WHEN over THEN 0.85 + 0.15 * sqrt(r5) END,
       seconds / 15, coalesce(end_time, now()), CASE WHEN over AND verdict <> 'unknown' THEN 'slurmdbd' ELSE 'epilog' END,
       CASE WHEN NOT over THEN 'end' WHEN verdict = 'unknown' THEN 'outcome' END, correlation_id,
       coalesce(end_time, now()), jsonb_build_object('held', repeat(md5(n::text), 25))
FROM (SELECT *, end_time IS NOT NULL AS over, extract(epoch FROM coalesce(end_time, now()) - start_time)::double precision AS seconds
      FROM volume_job) AS j;
INSERT INTO jobs (cluster_name, job_id, run, user_name, account, partition, state, submit_time, awaits, correlation_id, projection)
SELECT 'c1', 'slurm-' || 200000 + n, 1, 'user' || n, 'physics', 'gpu', 'pending', now() - n * interval '10 min', 'facts',
       gen_random_uuid(), '{}' FROM generate_series(1, 30) AS n;

CREATE UNLOGGED TABLE volume_node AS
SELECT j.n, j.job_id, node, start_time, end_time, cpus / node_count AS cpus, gpus / node_count AS gpus, verdict, r3, r5,
       (node_count = 1 OR place <= 2) AS early, gen_random_uuid() AS opened_by,
       extract(epoch FROM coalesce(end_time, now()) - start_time)::double precision AS seconds
FROM volume_job j CROSS JOIN LATERAL unnest(nodes) WITH ORDINALITY AS part (node, place);
INSERT INTO job_nodes (
    cluster_name, job_id, run, node, started_at, ended_at, end_inferred, opened_by, cpus, cpu_seconds, memory_peak_bytes,
    gpu_seconds, gpu_busy_seconds, gpu_unused_seconds, energy_joules, coverage_ratio, sample_count, projection
)
SELECT 'c1', job_id, 1, node, start_time, end_time, end_time IS NOT NULL AND verdict = 'node_fail', opened_by, cpus,
       cpus * seconds * r3, 64 * 1024 ^ 3 * r5, gpus * seconds, gpus * seconds * r5, 0,
       CASE WHEN r3 < 0.9 THEN seconds * 300 END, CASE WHEN end_time IS NOT NULL THEN 0.95 END, seconds / 15,
       jsonb_build_object('held', repeat(md5(n::text), 12))
FROM volume_node;
INSERT INTO job_gpus (
    cluster_name, job_id, run, node, gpu_id, vendor, minor, name, observed_seconds, busy_seconds, unused_seconds,
    energy_joules, energy_covered_seconds, errors, attribution_mismatch
)
SELECT 'c1', job_id, 1, node, 'GPU-' || node || '-' || g, 'nvidia', g, 'NVIDIA H100', seconds, seconds * r5,
       CASE WHEN r5 < 0.1 THEN seconds * (1 - r5) ELSE 0 END, seconds * 250, seconds,
       CASE WHEN n % 40 = 0 THEN '{"31": 2}'::jsonb END, CASE WHEN n % 500 = 0 THEN 'another process was on it' END
FROM volume_node CROSS JOIN LATERAL generate_series(0, gpus - 1) AS g WHERE gpus IS NOT NULL;
INSERT INTO nodes (cluster_name, node, state, state_flags, reason, cpus, partitions, first_seen_at, updated_at, state_changed_at)
SELECT 'c1', 'n' || lpad(n::text, 3, '0'), CASE WHEN n % 60 = 0 THEN 'down' ELSE 'mixed' END,
       CASE WHEN n % 50 = 0 THEN ARRAY['drain'] ELSE '{}' END, CASE WHEN n % 50 = 0 THEN 'memory errors' END, 64,
       ARRAY['cpu', 'gpu'], now() - interval '365 days', now(), now() - interval '2 days'
FROM generate_series(1, 250) AS n;
CREATE INDEX ON volume_node (start_time);
ANALYZE volume_job, volume_node;
