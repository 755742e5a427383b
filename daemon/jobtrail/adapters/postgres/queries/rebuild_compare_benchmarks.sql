-- Runs of benchmarks that differ from what the trail gives, a missing one as NULL. $1 JSON array of rows as the trail gives them
SELECT e.run_uid::text AS which, stored.content AS stored, expected.content AS expected
FROM jsonb_populate_recordset(NULL::benchmark_run, $1::jsonb) e
LEFT JOIN benchmark_run r ON r.run_uid = e.run_uid
CROSS JOIN (SELECT ARRAY['stored_at', 'looked_at', 'settled_at', 'counts', 'open_reason', 'energy_invalid_reason', 'judged_at']) AS of_server (columns)
CROSS JOIN LATERAL (SELECT CASE WHEN r.run_uid IS NOT NULL THEN to_jsonb(r) - of_server.columns END AS content) stored
CROSS JOIN LATERAL (SELECT to_jsonb(e) - of_server.columns AS content) expected
WHERE stored.content IS DISTINCT FROM expected.content
ORDER BY e.run_uid
