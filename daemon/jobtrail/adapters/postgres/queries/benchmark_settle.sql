-- A run's links and energy have been worked out. $1 uid, $2 what is still awaited, $3 why the energy says nothing; NULL is nothing
UPDATE benchmark_run SET looked_at = now(), open_reason = $2::text, energy_invalid_reason = $3::text,
    settled_at = CASE WHEN $2::text IS NULL THEN now() END
WHERE run_uid = $1::text::uuid
RETURNING run_uid
