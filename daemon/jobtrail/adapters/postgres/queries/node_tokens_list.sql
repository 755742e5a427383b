-- Tokens of nodes for people, newest first. $1 node, NULL is any; $2 whether also those that are not valid
SELECT
    node, left(encode(digest, 'hex'), 12) AS id, created_at, created_by, expires_at, revoked_at, revoked_by,
    CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'valid' END AS state
FROM node_tokens
WHERE ($1::text IS NULL OR node = $1)
  AND ($2::boolean OR (revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now()))
ORDER BY node, created_at DESC
