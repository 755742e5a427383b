-- Chains that do not end where a checkpoint, or one before it, covers them; the database's own always. $1 checkpoint number
SELECT c.chain_id::text, c.node, c.head_seq, c.head_hash, c.store_hash, f.head_seq AS verified_seq,
       f.head_hash AS verified_hash, f.store_hash AS verified_store_hash
FROM audit_chain c
LEFT JOIN LATERAL (
    SELECT head_seq, head_hash, store_hash FROM audit_checkpoint_leaf
    WHERE chain_id = c.chain_id AND number <= $1 ORDER BY head_seq DESC LIMIT 1
) f ON true
WHERE c.head_seq IS DISTINCT FROM f.head_seq OR c.head_hash IS DISTINCT FROM f.head_hash
   OR c.store_hash IS DISTINCT FROM f.store_hash OR c.node = '@store'
ORDER BY (c.node = '@store') DESC, c.chain_id
