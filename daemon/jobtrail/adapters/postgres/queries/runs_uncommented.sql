-- Runs that are over and settled and have no comment in the trail. $1 cluster, $2 seconds back, $3 $4 runs to leave out, $5 limit, $6 quiet s
-- Settled: Slurm confirmed the end, its accounting has nothing to add or had ten minutes for it, and no node has said
-- anything for $6 seconds. A run that was taken back into the queue has no line of its own for users to look at.
SELECT j.*
FROM jobs AS j
WHERE j.cluster_name = $1
    AND j.end_time > now() - make_interval(secs => $2)
    AND j.job_id LIKE 'slurm-%'
    AND j.state_confirmed
    AND j.start_time IS NOT NULL
    AND j.submit_time IS NOT NULL
    AND j.verdict IS DISTINCT FROM 'requeued'
    AND (j.awaits IS NULL OR (j.awaits = 'usage' AND j.end_time < now() - interval '10 minutes'))
    AND j.updated_at < now() - make_interval(secs => $6)
    AND NOT EXISTS (
        SELECT FROM unnest($3::text[], $4::integer[]) AS known (job_id, run)
        WHERE known.job_id = j.job_id AND known.run = j.run
    )
    AND NOT EXISTS (
        SELECT FROM audit_log AS l
        WHERE l.job_id = j.job_id AND l.cluster_name = j.cluster_name AND l.run = j.run AND l.kind = 'comment_written'
    )
ORDER BY j.end_time
LIMIT $5
