-- Where checkpoints cover a chain. $1 chain id, $2 after this sequence, $3 up to this one
SELECT number, head_seq, head_hash, store_hash FROM audit_checkpoint_leaf
WHERE chain_id = $1 AND head_seq > $2 AND head_seq <= $3 ORDER BY head_seq
