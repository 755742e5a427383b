-- Delete recipes, to be written anew. $1 JSON array of rows, $2 whether all others are wrong
DELETE FROM benchmark_recipe c
WHERE $2::boolean OR EXISTS (
    SELECT FROM jsonb_populate_recordset(NULL::benchmark_recipe, $1::jsonb) e
    WHERE e.name = c.name AND e.sha256 = c.sha256
)
