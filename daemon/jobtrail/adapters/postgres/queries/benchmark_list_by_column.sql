-- Uids of runs of benchmarks by a column of theirs, those without a value last. $1 recipe, $2 model, $3 status, $4 tool, $5 job id, $6 user, $7 hardware, $8 verdict, $9 since, $10 until, $11 limit, $12 offset, $13 column, $14 largest first; NULL is any
WITH found AS (
    SELECT s.run_uid, s.started_at, CASE $13::text
        WHEN 'started_at' THEN to_jsonb(extract(epoch FROM s.started_at))
        WHEN 'ended_at' THEN to_jsonb(extract(epoch FROM s.ended_at))
        WHEN 'reported_at' THEN to_jsonb(extract(epoch FROM s.reported_at))
        WHEN 'recipe' THEN to_jsonb(s.recipe)
        WHEN 'mode' THEN to_jsonb(s.mode)
        WHEN 'model' THEN to_jsonb(s.model)
        WHEN 'tool' THEN to_jsonb(s.tool)
        WHEN 'tool_version' THEN to_jsonb(s.tool_version)
        WHEN 'status' THEN to_jsonb(s.status)
        WHEN 'verdict' THEN to_jsonb(s.verdict)
        WHEN 'hardware' THEN to_jsonb(s.hardware)
        WHEN 'gpu_model' THEN to_jsonb(s.gpu_model)
        WHEN 'gpu_count' THEN to_jsonb(s.gpu_count)
        WHEN 'user_name' THEN to_jsonb(s.user_name)
        WHEN 'account' THEN to_jsonb(s.account)
        WHEN 'partition' THEN to_jsonb(s.partition)
        WHEN 'job_id' THEN to_jsonb(s.job_id)
        WHEN 'job_state' THEN to_jsonb(s.job_state)
        WHEN 'link_state' THEN to_jsonb(s.link_state)
        WHEN 'error_ratio' THEN to_jsonb(s.error_ratio)
        WHEN 'duration_seconds' THEN to_jsonb(s.duration_seconds)
        WHEN 'output_tokens' THEN to_jsonb(s.output_tokens)
        WHEN 'gpu_joules' THEN to_jsonb(s.gpu_joules)
        WHEN 'cpu_joules' THEN to_jsonb(s.cpu_joules)
        WHEN 'dram_joules' THEN to_jsonb(s.dram_joules)
        WHEN 'total_joules' THEN to_jsonb(s.total_joules)
        WHEN 'energy_coverage_ratio' THEN to_jsonb(s.energy_coverage_ratio)
        WHEN 'job_total_joules' THEN to_jsonb(s.job_total_joules)
    END AS key
    FROM benchmark_run_summary s
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
)
SELECT run_uid::text FROM found
ORDER BY key IS NULL, CASE WHEN $14::boolean THEN key END DESC, CASE WHEN NOT $14::boolean THEN key END,
         started_at DESC, run_uid
LIMIT $11::bigint OFFSET $12::bigint
