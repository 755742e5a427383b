-- A run that got numbers its recipe judges it by is to be judged again, and so are those after it in its series. $1 uid
UPDATE benchmark_run later SET judged_at = NULL
FROM benchmark_run r
WHERE r.run_uid = $1::text::uuid AND later.fingerprint = r.fingerprint
  AND (later.ended_at, later.run_uid) >= (r.ended_at, r.run_uid) AND later.judged_at IS NOT NULL
  AND EXISTS (
      SELECT FROM benchmark_metric m
      WHERE m.run_uid = r.run_uid AND m.repeat = 0 AND m.settled AND r.gates ? (m.metric || '.' || m.stat)
  )
