-- Ok runs that are to be judged, oldest first; none whose job is still awaited. $1 limit
SELECT run_uid::text FROM benchmark_run WHERE judged_at IS NULL AND status = 'ok' AND (counts OR settled_at IS NOT NULL)
ORDER BY ended_at, run_uid
LIMIT $1::bigint
