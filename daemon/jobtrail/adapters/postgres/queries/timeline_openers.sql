-- What samples of a run name: the events that began it on its nodes; the run itself, where somebody sent them. $1 cluster, $2 job id, $3 run
SELECT n.opened_by AS ref
FROM job_nodes n
WHERE (n.cluster_name, n.job_id, n.run) = ($1, $2, $3) AND n.opened_by IS NOT NULL
UNION
SELECT also.ref::uuid
FROM job_nodes n CROSS JOIN jsonb_array_elements_text(coalesce(n.projection -> 'also_opened_by', '[]')) AS also (ref)
WHERE (n.cluster_name, n.job_id, n.run) = ($1, $2, $3)
UNION
SELECT j.correlation_id
FROM jobs j
WHERE (j.cluster_name, j.job_id, j.run) = ($1, $2, $3)
