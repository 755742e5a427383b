-- What people decided about runs, oldest first. $1 uids
SELECT run_uid::text, decision, decided_at, decided_by, reason, event_id
FROM benchmark_decision WHERE run_uid = ANY ($1::text[]::uuid[]) ORDER BY run_uid, decided_at, event_id
