-- A judged run that got a number it is to be judged by, and has no verdict on, is to be judged again. $1 uid
UPDATE benchmark_run r SET judged_at = NULL
WHERE r.run_uid = $1::text::uuid AND r.judged_at IS NOT NULL AND EXISTS (
    SELECT FROM benchmark_metric m JOIN benchmark_metric_def d USING (metric)
    WHERE m.run_uid = r.run_uid AND m.repeat = 0 AND m.settled
      AND CASE WHEN r.gates = '{}' THEN m.stat = ANY (d.gates) ELSE r.gates ? (m.metric || '.' || m.stat) END
      AND NOT EXISTS (SELECT FROM benchmark_verdict v
                      WHERE v.run_uid = m.run_uid AND v.metric = m.metric AND v.stat = m.stat)
)
