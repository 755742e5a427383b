-- Numbers of runs that are better or worse, of each repeat too. $1 uids
SELECT m.run_uid::text, m.repeat, m.metric, m.stat, m.value
FROM benchmark_metric m JOIN benchmark_metric_def d USING (metric)
WHERE m.run_uid = ANY ($1::text[]::uuid[]) AND d.direction <> 'none'
ORDER BY m.run_uid, m.repeat, m.metric, m.stat
