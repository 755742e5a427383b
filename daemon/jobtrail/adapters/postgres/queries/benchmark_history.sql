-- The ok runs that count of a series before one, newest first. $1 fingerprint, $2 end of that run, $3 its uid, $4 limit
SELECT run_uid::text, (extract(epoch FROM ended_at) * 1000000)::bigint AS ended_us, status, error_rate
FROM benchmark_run
WHERE fingerprint = $1 AND (ended_at, run_uid) < ($2, $3::text::uuid) AND status = 'ok' AND counts
ORDER BY ended_at DESC, run_uid DESC
LIMIT $4::bigint
