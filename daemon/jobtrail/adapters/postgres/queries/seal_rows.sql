-- Rows that no checkpoint covers yet, chain by chain in order, with where the chain was sealed.
SELECT l.chain_id::text, l.seq, l.event_id::text, l.kind, l.changed_at, l.prev_hash, l.commitment, l.row_hash, l.received_at,
       l.stored_at, l.changed_by, l.source, l.change_type, l.cluster_name, l.job_id, l.run, l.node, l.correlation_id::text,
       l.unapplied, l.request_id::text, l.snapshot_commitment, l.store_hash,
       s.head_seq AS sealed_seq, s.head_hash AS sealed_hash, s.store_hash AS sealed_store_hash
FROM audit_chain c
LEFT JOIN audit_seal s ON s.chain_id = c.chain_id
JOIN audit_log l ON l.chain_id = c.chain_id AND l.seq > coalesce(s.head_seq, 0)
WHERE c.head_seq > coalesce(s.head_seq, 0)
ORDER BY l.chain_id, l.seq
