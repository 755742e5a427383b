-- Payloads that belong to no row.
SELECT p.chain_id::text, p.seq FROM audit_payload p
WHERE NOT EXISTS (SELECT FROM audit_log l WHERE l.chain_id = p.chain_id AND l.seq = p.seq AND l.received_at = p.received_at)
ORDER BY p.chain_id, p.seq LIMIT 1000
