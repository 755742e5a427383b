-- Up to two runs whose uids lie in a range. $1 the least, $2 the greatest
SELECT run_uid::text FROM benchmark_run WHERE run_uid BETWEEN $1::text::uuid AND $2::text::uuid LIMIT 2
