-- Delete decisions, to be written anew. $1 JSON array of rows, $2 whether all others are wrong
DELETE FROM benchmark_decision d
WHERE $2::boolean OR EXISTS (
    SELECT FROM jsonb_populate_recordset(NULL::benchmark_decision, $1::jsonb) e
    WHERE e.run_uid = d.run_uid AND e.event_id = d.event_id
)
