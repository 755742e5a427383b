-- Say by whom runs were reported, where a better event with the same report has come; their links are open again. $1 JSON array of rows of benchmark_run
UPDATE benchmark_run r SET (cluster_name, node, uid, user_name, from_job, event_id, reported_at, settled_at) =
    (n.cluster_name, n.node, n.uid, n.user_name, n.from_job, n.event_id, n.reported_at, NULL)
FROM jsonb_populate_recordset(NULL::benchmark_run, $1::jsonb) n
WHERE r.run_uid = n.run_uid
