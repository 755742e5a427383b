-- Write numbers of runs; what was reported stays as it is. $1 JSON array of rows of benchmark_metric
INSERT INTO benchmark_metric (run_uid, repeat, metric, stat, value, settled)
SELECT run_uid, repeat, metric, stat, value, settled
FROM jsonb_populate_recordset(NULL::benchmark_metric, $1::jsonb)
ON CONFLICT (run_uid, repeat, metric, stat) DO NOTHING
