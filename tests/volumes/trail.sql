-- Some 1,050,000 events of these runs in 252 chains: a node's each, the server's, and a second one of n007. Hashes are
-- those of names, not of contents: nothing here is verified, only looked up.
--
-- Wrong on purpose: three numbers are missing in n010's chain and one in n011's, a link of n012's does not hold, two events
-- at the end of n013's are gone, n250 has been silent for 40 days, n007 began anew three days ago. Of the events, one in
-- 2,000 waited five hours for the database and another was told two days after it happened.
CREATE UNLOGGED TABLE volume_event AS
SELECT *, row_number() OVER (PARTITION BY chain_id ORDER BY at, step, n) AS seq FROM (
    SELECT j.n, step, t.at, kind, changed_by, source, place.node,
           md5('chain of ' || place.node || CASE WHEN place.node = 'n007' AND t.at > now() - interval '3 days' THEN ' anew' ELSE '' END)::uuid
               AS chain_id
    FROM volume_job j
    CROSS JOIN generate_series(1, 21) AS step
    CROSS JOIN LATERAL (
        SELECT CASE step WHEN 1 THEN submit_time WHEN 2 THEN start_time + step * interval '1 ms' WHEN 19 THEN end_time
                   WHEN 20 THEN end_time + interval '1 s' WHEN 21 THEN end_time + interval '7 s'
                   ELSE start_time + (coalesce(end_time, now()) - start_time) * ((step - 2) / 17.0) END AS at,
               CASE WHEN step IN (1, 21) THEN 'slurm_reported' WHEN step = 2 THEN 'job_started' WHEN step = 19 THEN 'job_finished'
                   WHEN step = 20 THEN 'usage_recorded' ELSE 'checkpoint' END AS kind,
               CASE WHEN step IN (1, 21) THEN 'reconciler' WHEN step = 2 THEN 'slurm-prolog' WHEN step = 19 THEN 'slurm-epilog'
                   ELSE 'collector' END AS changed_by,
               CASE WHEN step IN (1, 21) THEN 'slurmdbd' WHEN step IN (2, 19) THEN 'hook' ELSE 'cgroup_v2' END AS source
    ) AS t
    CROSS JOIN LATERAL (
        SELECT CASE WHEN step IN (1, 21) THEN 'server1' ELSE nodes[1 + step % node_count] END AS node
    ) AS place
    WHERE t.at <= now() AND NOT (place.node = 'n250' AND t.at > now() - interval '40 days')
    UNION ALL
    SELECT n, 22, submit_time + interval '1 min', 'job_amended', 'api', 'api', 'server1', md5('chain of server1')::uuid
    FROM volume_job WHERE n % 250 = 150 OR n = 49900
    UNION ALL
    SELECT NULL, 0, now() - CASE WHEN again THEN interval '3 days' ELSE interval '366 days' END, 'chain_started', 'collector',
           'spool', node, md5('chain of ' || node || CASE WHEN again THEN ' anew' ELSE '' END)::uuid
    FROM (SELECT 'n' || lpad(n::text, 3, '0') AS node, false AS again FROM generate_series(1, 250) AS n
          UNION ALL VALUES ('server1', false), ('n007', true)) AS chain
) AS events;
CREATE UNLOGGED TABLE volume_entry AS
SELECT e.*, CASE WHEN n % 2000 = 1 AND step = 2 THEN least(at + interval '2 days', now()) ELSE at + interval '20 ms' END AS received_at,
       CASE WHEN n % 2000 = 0 AND step > 1 THEN least(at + interval '5 hours', now())
            WHEN n % 2000 = 1 AND step = 2 THEN least(at + interval '2 days', now()) ELSE at END + interval '1.5 s' AS stored_at
FROM volume_event e
WHERE NOT (chain_id = md5('chain of n010')::uuid AND seq BETWEEN 100 AND 102)
  AND NOT (chain_id = md5('chain of n011')::uuid
           AND seq = (SELECT max(seq) - 20 FROM volume_event WHERE chain_id = md5('chain of n011')::uuid));
DROP TABLE volume_event;

INSERT INTO audit_log (
    chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at, received_at, stored_at, changed_by, source,
    change_type, cluster_name, job_id, run, node, correlation_id, unapplied, request_id
)
SELECT e.chain_id, e.seq, gen_random_uuid(), e.kind,
       CASE e.seq WHEN 1 THEN decode(repeat('00', 32), 'hex') ELSE sha256(convert_to(e.chain_id || '/' || e.seq - 1, 'UTF8')) END,
       sha256(convert_to(e.seq::text, 'UTF8')),
       sha256(convert_to(CASE WHEN e.node = 'n012' AND e.seq = last.seq - 30 THEN 'forged' ELSE e.chain_id || '/' || e.seq END, 'UTF8')),
       e.at, e.received_at, e.stored_at, e.changed_by, e.source,
       CASE WHEN e.step = 1 THEN 'create' WHEN e.step > 1 THEN 'update' END, CASE WHEN e.step > 0 THEN 'c1' END, j.job_id,
       CASE WHEN e.step > 0 THEN 1 END, e.node, j.correlation_id,
       CASE WHEN e.n % 1000 = 500 AND e.step = 20 THEN 'the run is over' END,
       CASE WHEN e.step = 22 THEN CASE e.n WHEN 49900 THEN 'c0ffee00-0000-4000-8000-000000000001' ELSE gen_random_uuid() END::uuid END
FROM volume_entry e LEFT JOIN volume_job j USING (n)
JOIN (SELECT chain_id, max(seq) AS seq FROM volume_entry GROUP BY chain_id) AS last USING (chain_id)
ORDER BY e.stored_at;
INSERT INTO audit_payload (chain_id, seq, received_at, payload, salt, job_snapshot, person, sent_by)
SELECT e.chain_id, e.seq, e.received_at,
       convert_to('{"changed_by":"' || e.changed_by || '","cluster":"c1","environment":{"SLURM_JOB_ID":"' || coalesce(j.n, 0)
                  || '","filler":"' || repeat('x', 250) || '"},"kind":"' || e.kind || '","note":"as told","time_us":1}', 'UTF8'),
       sha256(convert_to(e.seq::text, 'UTF8')),
       CASE WHEN j.n IS NOT NULL THEN jsonb_build_object(
           'job_id', j.job_id, 'user_name', j.user_name, 'account', j.account, 'partition', j.partition, 'cpus_allocated', j.cpus,
           'state', CASE WHEN e.step = 1 THEN 'pending' WHEN e.step < 19 THEN 'running' WHEN e.step = 22 THEN 'pending' WHEN e.step < 21 THEN 'ended'
                         WHEN j.verdict IN ('cancelled', 'completed') THEN j.verdict ELSE 'failed' END,
           'verdict', CASE WHEN e.step = 21 THEN j.verdict END, 'nodes', j.nodes, 'correlation_id', j.correlation_id) END,
       CASE WHEN e.step = 22 THEN CASE WHEN e.n % 500 = 400 THEN 'alice' ELSE 'bob' END END, CASE WHEN e.step = 22 THEN 'uid 1003' END
FROM volume_entry e LEFT JOIN volume_job j USING (n)
ORDER BY e.stored_at;
INSERT INTO audit_chain (chain_id, node, head_seq, head_hash, updated_at)
SELECT chain_id, min(node), max(seq) + CASE min(node) WHEN 'n013' THEN 2 ELSE 0 END, sha256('head'), max(stored_at)
FROM volume_entry GROUP BY chain_id;
INSERT INTO audit_conflict (chain_id, seq, held_hash, offered_hash, payload, reason, seen_at)
SELECT md5('chain of n00' || n)::uuid, n, sha256('held'), sha256('offered'), '{}', 'another row is held under this number',
       now() - n * interval '1 day' FROM generate_series(1, 6) AS n;
INSERT INTO jobs_withdrawn (cluster_name, job_id, run, withdrawn_at, withdrawn_by, sent_by, user_name, correlation_id, job, projection)
SELECT 'c1', 'manual-' || n, 1, now() - n * interval '1 day', 'alice', 'uid 1003', 'bob', gen_random_uuid(), '{}', '{}'
FROM generate_series(1, 20) AS n;
