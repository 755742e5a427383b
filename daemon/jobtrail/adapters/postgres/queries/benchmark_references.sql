-- What people decided about runs, as far as it holds. $1 uids
SELECT run_uid::text, accepted, pinned FROM benchmark_reference WHERE run_uid = ANY ($1::text[]::uuid[])
