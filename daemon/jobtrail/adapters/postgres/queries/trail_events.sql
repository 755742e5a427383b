-- All events that were applied, run by run, each run's in the order in which they happened.
SELECT l.cluster_name, l.job_id, l.run, l.chain_id, l.seq,
       CASE WHEN r.run IS NULL THEN p.payload END AS payload  -- a run is derived from all of its events or not at all
FROM audit_log l
LEFT JOIN audit_removed_run r ON r.cluster_name = l.cluster_name AND r.job_id = l.job_id AND r.run = l.run
LEFT JOIN audit_payload p ON p.chain_id = l.chain_id AND p.seq = l.seq AND p.received_at = l.received_at
WHERE l.run IS NOT NULL
ORDER BY l.cluster_name COLLATE "C", l.job_id COLLATE "C", l.run, l.changed_at, l.event_id
