-- What happened to a job, oldest first; of more than $4 events the newest. $1 job id, $2 run, $3 cluster, $4 limit; NULL is any
SELECT * FROM (
    SELECT
        cluster_name, job_id, run, node, event_kind, change_type, changed_at, received_at, stored_at, changed_by,
        source, correlation_id, event_id, chain_id, seq, unapplied, event, job_snapshot,
        person, sent_by, request_id
    FROM job_audit_events
    WHERE job_id = $1 AND ($3::text IS NULL OR cluster_name = $3)
      -- Reports of benchmarks change no run, but may be linked to one.
      AND ($2::integer IS NULL OR run = $2 OR (event_kind = 'benchmark_recorded' AND EXISTS (
          SELECT FROM benchmark_run_job k
          WHERE k.job_id = $1 AND k.run = $2 AND k.run_uid::text = event -> 'benchmark' ->> 'run_uid'
      )))
    ORDER BY changed_at DESC, chain_id DESC, seq DESC
    LIMIT $4::bigint
) AS newest
ORDER BY changed_at, chain_id, seq
