-- Tokens of nodes, those over for more than thirty days left out
SELECT node, digest, (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_us, revoked_at IS NOT NULL AS revoked
FROM node_tokens
WHERE coalesce(least(revoked_at, expires_at), 'infinity') > now() - interval '30 days'
