-- The first row that is held of each chain, with what it says where that is the chain's very first, and the last number held.
WITH RECURSIVE stored AS (
    (SELECT chain_id FROM audit_log ORDER BY chain_id LIMIT 1)
    UNION ALL
    SELECT (SELECT l.chain_id FROM audit_log l WHERE l.chain_id > stored.chain_id ORDER BY l.chain_id LIMIT 1)
    FROM stored WHERE stored.chain_id IS NOT NULL
)
SELECT s.chain_id::text, f.node, f.stored_at, h.seq AS head_seq, p.payload
FROM stored s
CROSS JOIN LATERAL (SELECT seq, node, stored_at, received_at FROM audit_log WHERE chain_id = s.chain_id ORDER BY seq LIMIT 1) f
CROSS JOIN LATERAL (SELECT seq FROM audit_log WHERE chain_id = s.chain_id ORDER BY seq DESC LIMIT 1) h
LEFT JOIN audit_payload p ON f.seq = 1 AND p.chain_id = s.chain_id AND p.seq = 1 AND p.received_at = f.received_at
WHERE f.node IS NOT NULL
