-- The runs' own numbers. $1 uids
SELECT run_uid::text, metric, stat, value FROM benchmark_metric
WHERE run_uid = ANY ($1::text[]::uuid[]) AND repeat = 0 ORDER BY run_uid, metric, stat
