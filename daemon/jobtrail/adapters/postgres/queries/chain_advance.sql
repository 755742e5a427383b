-- Move the end of a chain. $1 chain id, $2 node, $3 sequence, $4 row hash
UPDATE audit_chain SET node = $2, head_seq = $3, head_hash = $4, updated_at = now() WHERE chain_id = $1
