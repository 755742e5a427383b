-- Some checkpoints with their leaves. $1 numbers
SELECT c.number, c.previous, c.root, c.leaf_count, c.total_rows, c.sealed_at, c.digest, c.signature, c.key_id,
       f.chains, f.seqs, f.hashes, f.store_hashes
FROM audit_checkpoint c
LEFT JOIN LATERAL (
    SELECT array_agg(chain_id::text ORDER BY position) AS chains, array_agg(head_seq ORDER BY position) AS seqs,
           array_agg(head_hash ORDER BY position) AS hashes, array_agg(store_hash ORDER BY position) AS store_hashes
    FROM audit_checkpoint_leaf WHERE number = c.number
) f ON true
WHERE c.number = ANY ($1::bigint[])
ORDER BY c.number
