-- Put on record what was offered under a held key; once for each different offer. $1 chain, $2 seq, $3 held, $4 offered, $5 payload, $6 reason
INSERT INTO audit_conflict (chain_id, seq, held_hash, offered_hash, payload, reason) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (chain_id, seq, offered_hash) DO NOTHING
