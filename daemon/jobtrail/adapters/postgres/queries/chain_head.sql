-- Where the copy of one chain ends. $1 chain id
SELECT head_seq, head_hash FROM audit_chain WHERE chain_id = $1
