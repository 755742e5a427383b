-- Ok runs that are to be judged, oldest first. $1 highest error rate, $2 limit
SELECT r.run_uid::text FROM benchmark_run r
WHERE r.judged_at IS NULL AND r.status = 'ok' AND coalesce(r.error_rate, 0) <= $1::double precision AND EXISTS (
    SELECT FROM benchmark_metric m JOIN benchmark_metric_def d USING (metric)
    WHERE m.run_uid = r.run_uid AND m.repeat = 0
      AND CASE WHEN r.gates = '{}' THEN m.stat = ANY (d.gates) ELSE r.gates ? (m.metric || '.' || m.stat) END
)
ORDER BY r.ended_at, r.run_uid
LIMIT $2::bigint
