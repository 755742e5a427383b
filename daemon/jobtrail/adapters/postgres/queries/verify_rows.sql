-- Rows of a chain with their payloads, in order. $1 chain id, $2 after this sequence, $3 up to this one
SELECT l.chain_id::text, l.seq, l.event_id::text, l.kind, l.changed_at, l.prev_hash, l.commitment, l.row_hash, l.received_at,
       l.stored_at, l.changed_by, l.source, l.change_type, l.cluster_name, l.job_id, l.run, l.node, l.correlation_id::text,
       l.unapplied, l.request_id::text, l.snapshot_commitment, l.store_hash,
       p.payload, p.salt, p.job_snapshot::text AS snapshot, p.person, p.sent_by
FROM audit_log l
LEFT JOIN audit_payload p ON p.chain_id = l.chain_id AND p.seq = l.seq AND p.received_at = l.received_at
WHERE l.chain_id = $1 AND l.seq > $2 AND l.seq <= $3
ORDER BY l.seq
