-- Revoke a token. $1 first digits of its digest, or a node whose tokens are all meant; $2 by whom
UPDATE node_tokens SET revoked_at = now(), revoked_by = $2
WHERE revoked_at IS NULL AND (node = $1 OR (length($1) = 12 AND left(encode(digest, 'hex'), 12) = $1))
RETURNING node, left(encode(digest, 'hex'), 12) AS id
