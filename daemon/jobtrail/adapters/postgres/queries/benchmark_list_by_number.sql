-- Uids of runs of benchmarks by a number of theirs, those without it last. $1 recipe, $2 model, $3 status, $4 tool, $5 job id, $6 user, $7 hardware, $8 verdict, $9 since, $10 until, $11 limit, $12 offset, $13 metric, $14 statistic, $15 largest first; NULL is any
SELECT s.run_uid::text
FROM benchmark_run_summary s
LEFT JOIN benchmark_metric m
    ON m.run_uid = s.run_uid AND m.repeat = 0 AND m.metric = $13::text AND m.stat = $14::text
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
ORDER BY CASE WHEN $15::boolean THEN -m.value ELSE m.value END NULLS LAST, s.started_at DESC, s.run_uid
LIMIT $11::bigint OFFSET $12::bigint
