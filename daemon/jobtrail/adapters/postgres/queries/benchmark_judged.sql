-- These runs are judged. $1 uids
UPDATE benchmark_run SET judged_at = now() WHERE run_uid = ANY ($1::text[]::uuid[])
