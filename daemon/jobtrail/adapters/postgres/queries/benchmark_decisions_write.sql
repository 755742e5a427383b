-- Write what people decided about runs. $1 JSON array of rows of benchmark_decision
INSERT INTO benchmark_decision (run_uid, event_id, decision, decided_at, decided_by, reason)
SELECT run_uid, event_id, decision, decided_at, decided_by, reason
FROM jsonb_populate_recordset(NULL::benchmark_decision, $1::jsonb)
ON CONFLICT (run_uid, event_id) DO NOTHING
