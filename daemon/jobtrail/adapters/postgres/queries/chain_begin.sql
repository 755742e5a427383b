-- Begin a chain unless somebody else just did. $1 chain id, $2 node, $3 hash before the first row
INSERT INTO audit_chain (chain_id, node, head_seq, head_hash) VALUES ($1, $2, 0, $3) ON CONFLICT (chain_id) DO NOTHING
