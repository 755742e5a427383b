-- Recipes that differ from what the trail gives, a missing one as NULL. $1 JSON array of rows, $2 whether the trail could be read wholly
SELECT coalesce(e.name || ' ' || e.sha256, c.name || ' ' || c.sha256) AS which,
       CASE WHEN c.name IS NOT NULL THEN to_jsonb(c) END AS stored,
       CASE WHEN e.name IS NOT NULL THEN to_jsonb(e) END AS expected
FROM jsonb_populate_recordset(NULL::benchmark_recipe, $1::jsonb) e
FULL JOIN benchmark_recipe c ON c.name = e.name AND c.sha256 = e.sha256
WHERE to_jsonb(c) IS DISTINCT FROM to_jsonb(e) AND (e.name IS NOT NULL OR $2::boolean)
ORDER BY which
