-- Delete the node parts of some runs. $1 clusters, $2 job ids, $3 runs
DELETE FROM job_nodes n USING unnest($1::text[], $2::text[], $3::integer[]) AS gone (cluster_name, job_id, run)
WHERE n.cluster_name = gone.cluster_name AND n.job_id = gone.job_id AND n.run = gone.run
