-- Events of jobs, newest first. $1 since, $2 until, $3 changed by, $4 correlation id of run or request, $5 $6 $7 the place before, $8 limit, $9 person or sender; NULL is any
SELECT
    e.cluster_name, e.job_id, e.run, e.node, e.event_kind, e.change_type, e.changed_at, e.received_at, e.stored_at,
    e.changed_by, e.source, e.correlation_id, e.event_id, e.chain_id, e.seq, e.unapplied, e.event, e.job_snapshot,
    e.person, e.sent_by, e.request_id
FROM job_audit_events e
WHERE ($1::timestamptz IS NULL OR e.changed_at >= $1)
  AND ($2::timestamptz IS NULL OR e.changed_at < $2)
  AND ($3::text IS NULL OR e.changed_by = $3)
  AND ($9::text IS NULL OR e.person = $9 OR e.sent_by = $9)
  AND ($4::uuid IS NULL OR e.correlation_id = $4 OR e.request_id = $4)
  AND ($5::timestamptz IS NULL OR (e.changed_at <= $5 AND (e.changed_at, e.chain_id, e.seq) < ($5, $6::uuid, $7::bigint)))
ORDER BY e.changed_at DESC, e.chain_id DESC, e.seq DESC
LIMIT $8::bigint
