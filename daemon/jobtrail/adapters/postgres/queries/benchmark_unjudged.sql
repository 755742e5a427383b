-- Ok runs that are to be judged, oldest first. $1 limit
SELECT run_uid::text FROM benchmark_run WHERE judged_at IS NULL AND status = 'ok'
ORDER BY ended_at, run_uid
LIMIT $1::bigint
