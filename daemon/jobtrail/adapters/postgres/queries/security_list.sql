-- Who was turned away, newest first. $1 since, NULL is any; $2 limit
SELECT last_at, what, who, peer, times, first_at, detail, reporter FROM security_events
WHERE ($1::timestamptz IS NULL OR last_at >= $1)
ORDER BY last_at DESC
LIMIT $2::bigint
