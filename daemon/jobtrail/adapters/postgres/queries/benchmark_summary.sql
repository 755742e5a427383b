-- The summaries of some runs. $1 uids
SELECT s.* FROM benchmark_run_summary s WHERE s.run_uid = ANY ($1::text[]::uuid[])
