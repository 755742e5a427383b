-- The newest checkpoint.
SELECT number, previous, root, leaf_count, total_rows, sealed_at, signature, key_id FROM audit_checkpoint
ORDER BY number DESC LIMIT 1
