-- The events that began a run on its nodes: samples name them. $1 cluster, $2 job id, $3 run
SELECT n.opened_by AS ref
FROM job_nodes n
WHERE (n.cluster_name, n.job_id, n.run) = ($1, $2, $3) AND n.opened_by IS NOT NULL
UNION
SELECT also.ref::uuid
FROM job_nodes n CROSS JOIN jsonb_array_elements_text(coalesce(n.projection -> 'also_opened_by', '[]')) AS also (ref)
WHERE (n.cluster_name, n.job_id, n.run) = ($1, $2, $3)
