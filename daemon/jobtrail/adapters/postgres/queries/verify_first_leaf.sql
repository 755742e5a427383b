-- The first place at or after a sequence where a checkpoint covers a chain. $1 chain id, $2 sequence
SELECT number, head_seq, head_hash, store_hash FROM audit_checkpoint_leaf
WHERE chain_id = $1 AND head_seq >= $2 ORDER BY head_seq LIMIT 1
