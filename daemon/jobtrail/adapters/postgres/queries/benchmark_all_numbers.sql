-- All numbers of a run, its own and those of each repeat. $1 uid
SELECT repeat, metric, stat, value FROM benchmark_metric WHERE run_uid = $1::text::uuid
ORDER BY repeat, metric, stat
