-- Chains that end before the place up to which they were sealed, or whose last row is not there.
SELECT s.chain_id::text, s.head_seq, coalesce(c.head_seq, 0) AS held
FROM audit_seal s
LEFT JOIN audit_chain c ON c.chain_id = s.chain_id
WHERE coalesce(c.head_seq, 0) < s.head_seq
   OR NOT EXISTS (SELECT FROM audit_log l WHERE l.chain_id = s.chain_id AND l.seq = s.head_seq)
ORDER BY s.chain_id
LIMIT 100
