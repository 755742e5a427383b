-- What tells reports of benchmark runs apart. $1 uids
SELECT run_uid::text, report_sha256, from_job, (extract(epoch FROM reported_at) * 1000000)::bigint AS reported_us,
       event_id::text,
       (SELECT claim ->> 'job_id' FROM jsonb_array_elements(claims) WITH ORDINALITY AS c (claim, position)
        ORDER BY claim ->> 'role' = 'client', position LIMIT 1) AS job_id
FROM benchmark_run WHERE run_uid = ANY ($1::text[]::uuid[])
