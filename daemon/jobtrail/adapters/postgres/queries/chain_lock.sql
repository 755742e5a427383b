-- Lock one chain until the end of the transaction, and make its commit wait for the disk. $1 chain id
SELECT head_seq, head_hash, set_config('synchronous_commit', 'on', true) FROM audit_chain WHERE chain_id = $1 FOR UPDATE
