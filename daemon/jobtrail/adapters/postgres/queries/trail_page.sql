-- Events of jobs, newest first. $1 since, $2 until, $3 changed by, $4 correlation id, $5 uid, $6 $7 $8 the place before, $9 limit; NULL is any
SELECT
    e.cluster_name, e.job_id, e.run, e.node, e.event_kind, e.change_type, e.changed_at, e.received_at, e.stored_at,
    e.changed_by, e.source, e.correlation_id, e.event_id, e.chain_id, e.seq, e.unapplied, e.event, e.job_snapshot
FROM job_audit_events e
WHERE ($1::timestamptz IS NULL OR e.changed_at >= $1)
  AND ($2::timestamptz IS NULL OR e.changed_at < $2)
  AND ($3::text IS NULL OR e.changed_by = $3)
  AND ($4::uuid IS NULL OR e.correlation_id = $4)
  -- Users read of their own runs. Events of no run, such as reports of benchmarks that name a job, may be of others.
  AND ($5::bigint IS NULL OR e.run IS NOT NULL AND EXISTS (
      SELECT FROM jobs j
      WHERE j.cluster_name = e.cluster_name AND j.job_id = e.job_id AND j.run = e.run AND j.uid = $5
  ))
  AND ($6::timestamptz IS NULL OR (e.changed_at <= $6 AND (e.changed_at, e.chain_id, e.seq) < ($6, $7::uuid, $8::bigint)))
ORDER BY e.changed_at DESC, e.chain_id DESC, e.seq DESC
LIMIT $9::bigint
