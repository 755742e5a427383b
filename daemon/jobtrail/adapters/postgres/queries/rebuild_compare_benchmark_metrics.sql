-- Reported numbers that differ from what the trail gives, by run; what is missing is not in the object. $1 uids, $2 JSON array of rows
WITH expected AS (
    SELECT run_uid, jsonb_object_agg(concat_ws('.', repeat, metric, stat), value) AS content
    FROM jsonb_populate_recordset(NULL::benchmark_metric, $2::jsonb) GROUP BY run_uid
), stored AS (
    SELECT run_uid, jsonb_object_agg(concat_ws('.', repeat, metric, stat), value) AS content
    FROM benchmark_metric WHERE run_uid = ANY ($1::text[]::uuid[]) AND NOT settled GROUP BY run_uid
)
SELECT run_uid::text AS which, jsonb_build_object('numbers', coalesce(stored.content, '{}')) AS stored,
       jsonb_build_object('numbers', coalesce(expected.content, '{}')) AS expected
FROM expected FULL JOIN stored USING (run_uid)
WHERE stored.content IS DISTINCT FROM expected.content
ORDER BY run_uid
