-- All events about benchmarks that were applied, in the order in which they happened.
SELECT l.chain_id::text, l.seq, p.payload
FROM audit_log l
LEFT JOIN audit_payload p ON p.chain_id = l.chain_id AND p.seq = l.seq AND p.received_at = l.received_at
WHERE l.kind IN ('benchmark_recorded', 'baseline_decided') AND l.unapplied IS NULL
ORDER BY l.changed_at, l.event_id
