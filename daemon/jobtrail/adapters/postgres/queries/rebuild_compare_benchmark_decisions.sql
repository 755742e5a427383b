-- Decisions that differ from what the trail gives, a missing one as NULL. $1 JSON array of rows, $2 whether the trail could be read wholly
SELECT coalesce(e.run_uid, d.run_uid)::text AS which,
       CASE WHEN d.run_uid IS NOT NULL THEN to_jsonb(d) END AS stored,
       CASE WHEN e.run_uid IS NOT NULL THEN to_jsonb(e) END AS expected
FROM jsonb_populate_recordset(NULL::benchmark_decision, $1::jsonb) e
FULL JOIN benchmark_decision d ON d.run_uid = e.run_uid AND d.event_id = e.event_id
WHERE to_jsonb(d) IS DISTINCT FROM to_jsonb(e) AND (e.run_uid IS NOT NULL OR $2::boolean)
ORDER BY which
