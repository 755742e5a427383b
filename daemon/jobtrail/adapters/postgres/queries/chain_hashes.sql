-- Hashes of the rows held under some sequence numbers. $1 chain id, $2 sequence numbers
SELECT seq, row_hash FROM audit_log WHERE chain_id = $1 AND seq = ANY ($2::bigint[])
