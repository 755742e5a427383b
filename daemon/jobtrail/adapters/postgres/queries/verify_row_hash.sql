-- The hash of one row. $1 chain id, $2 sequence
SELECT row_hash FROM audit_log WHERE chain_id = $1 AND seq = $2
