-- The best valid run of each recipe, model and hardware, best first. $1 recipe, $2 model, $3 status, $4 tool, $5 job id, $6 user, $7 hardware, $8 verdict, $9 since, $10 until, $11 limit, $12 metric, $13 statistic, $14 whether higher is better, $15 highest error rate; NULL is any
WITH best AS (
    SELECT DISTINCT ON (s.recipe, s.recipe_sha256, s.model, s.hardware)
           s.run_uid, m.value, CASE WHEN $14::boolean THEN -m.value ELSE m.value END AS key
    FROM benchmark_metric m
    JOIN benchmark_run_summary s ON s.run_uid = m.run_uid
    WHERE ($1::text IS NULL OR s.recipe = $1)
      AND ($2::text IS NULL OR s.model = $2)
      AND ($3::text IS NULL OR s.status = $3)
      AND ($4::text IS NULL OR s.tool = $4)
      AND ($5::text IS NULL OR EXISTS (SELECT FROM benchmark_run_job k WHERE k.run_uid = s.run_uid AND k.job_id = $5))
      AND ($6::text IS NULL OR s.user_name = $6)
      AND ($7::text IS NULL OR s.hardware = $7)
      AND ($8::text IS NULL OR s.verdict = $8)
      AND ($9::timestamptz IS NULL OR s.started_at >= $9)
      AND ($10::timestamptz IS NULL OR s.started_at < $10)
      AND m.repeat = 0 AND m.metric = $12::text AND m.stat = $13::text
      AND coalesce(s.link_state, 'linked') = 'linked'
      AND s.status = 'ok' AND coalesce(s.error_ratio, 0) <= $15::double precision
    ORDER BY s.recipe, s.recipe_sha256, s.model, s.hardware, key, s.started_at, s.run_uid
)
SELECT run_uid::text, value, rank() OVER (ORDER BY key) AS rank FROM best
ORDER BY rank, run_uid
LIMIT $11::bigint
