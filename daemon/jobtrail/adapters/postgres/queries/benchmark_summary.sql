-- The summary of a run. $1 uid
SELECT s.* FROM benchmark_run_summary s WHERE s.run_uid = $1::text::uuid
