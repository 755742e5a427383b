-- What some nodes have of the runs of some jobs. $1 cluster names, $2 job ids, $3 nodes
SELECT n.cluster_name, n.job_id, n.run, n.projection
FROM unnest($1::text[], $2::text[]) AS wanted (cluster_name, job_id)
JOIN job_nodes n ON n.cluster_name = wanted.cluster_name AND n.job_id = wanted.job_id
WHERE n.node = ANY ($3::text[])
