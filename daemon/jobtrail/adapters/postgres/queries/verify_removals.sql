-- What the database's own chain says of removals, in order.
SELECT l.kind, l.seq, p.payload
FROM audit_log l
JOIN audit_chain c ON c.chain_id = l.chain_id AND c.node = '@store'
LEFT JOIN audit_payload p ON p.chain_id = l.chain_id AND p.seq = l.seq AND p.received_at = l.received_at
WHERE l.node = '@store'
ORDER BY l.seq
