-- Keep recipes as their first run had them. $1 JSON array of rows of benchmark_recipe
INSERT INTO benchmark_recipe (name, sha256, version, body, first_reported_at, first_event_id)
SELECT DISTINCT ON (name, sha256) name, sha256, version, body, first_reported_at, first_event_id
FROM jsonb_populate_recordset(NULL::benchmark_recipe, $1::jsonb)
ORDER BY name, sha256, first_reported_at, first_event_id
ON CONFLICT (name, sha256) DO UPDATE SET (version, body, first_reported_at, first_event_id) =
    (EXCLUDED.version, EXCLUDED.body, EXCLUDED.first_reported_at, EXCLUDED.first_event_id)
WHERE (EXCLUDED.first_reported_at, EXCLUDED.first_event_id)
      < (benchmark_recipe.first_reported_at, benchmark_recipe.first_event_id)
