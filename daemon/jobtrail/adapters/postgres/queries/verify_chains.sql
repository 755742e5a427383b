-- Every chain that is there, or that a checkpoint speaks of, with the end it is said to have; the database's own first.
WITH RECURSIVE covered AS (
    (SELECT chain_id FROM audit_checkpoint_leaf ORDER BY chain_id LIMIT 1)
    UNION ALL
    SELECT (SELECT f.chain_id FROM audit_checkpoint_leaf f WHERE f.chain_id > covered.chain_id ORDER BY f.chain_id LIMIT 1)
    FROM covered WHERE covered.chain_id IS NOT NULL
), stored AS (
    (SELECT chain_id FROM audit_log ORDER BY chain_id LIMIT 1)
    UNION ALL
    SELECT (SELECT l.chain_id FROM audit_log l WHERE l.chain_id > stored.chain_id ORDER BY l.chain_id LIMIT 1)
    FROM stored WHERE stored.chain_id IS NOT NULL
), named AS (
    SELECT chain_id FROM covered UNION SELECT chain_id FROM stored UNION SELECT chain_id FROM audit_chain
)
SELECT n.chain_id::text, c.node, c.head_seq, c.head_hash, c.store_hash, NULL::bigint AS verified_seq,
       NULL::bytea AS verified_hash, NULL::bytea AS verified_store_hash
FROM named n LEFT JOIN audit_chain c ON c.chain_id = n.chain_id
WHERE n.chain_id IS NOT NULL
ORDER BY (c.node = '@store') DESC NULLS LAST, n.chain_id
