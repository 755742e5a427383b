-- Runs that come after these in their series are to be judged again. $1 uids
UPDATE benchmark_run later SET judged_at = NULL
FROM benchmark_run changed
WHERE changed.run_uid = ANY ($1::text[]::uuid[]) AND later.fingerprint = changed.fingerprint
  AND (later.ended_at, later.run_uid) > (changed.ended_at, changed.run_uid)
  AND later.judged_at IS NOT NULL
