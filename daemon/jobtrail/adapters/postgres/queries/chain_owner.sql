-- Whose chain it is. $1 chain id
SELECT node FROM audit_chain WHERE chain_id = $1
