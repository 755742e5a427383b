-- All events that were applied, run by run, each run's in the order in which they happened.
SELECT l.cluster_name, l.job_id, l.run, l.chain_id, l.seq, p.payload
FROM audit_log l
LEFT JOIN audit_payload p ON p.chain_id = l.chain_id AND p.seq = l.seq AND p.received_at = l.received_at
WHERE l.run IS NOT NULL
ORDER BY l.cluster_name COLLATE "C", l.job_id COLLATE "C", l.run, l.changed_at, l.event_id
