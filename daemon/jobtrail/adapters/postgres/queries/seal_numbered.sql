-- A checkpoint. $1 number
SELECT number, previous, root, leaf_count, total_rows, sealed_at, signature, key_id FROM audit_checkpoint WHERE number = $1
