-- The newest checkpoint, and the newest that covers a chain with the chain's place in it. $1 chain id
SELECT s.chain_id IS NOT NULL AS is_own, c.number, c.previous, c.root, c.leaf_count, c.total_rows, c.sealed_at,
       c.signature, c.key_id, s.position, s.head_seq, s.head_hash, s.store_hash, s.path
FROM (
    (SELECT number, NULL::uuid AS chain_id FROM audit_checkpoint ORDER BY number DESC LIMIT 1)
    UNION ALL
    SELECT number, chain_id FROM audit_seal WHERE chain_id = $1
) AS wanted
JOIN audit_checkpoint c ON c.number = wanted.number
LEFT JOIN audit_seal s ON s.chain_id = wanted.chain_id
