-- Delete some runs. $1 clusters, $2 job ids, $3 runs
DELETE FROM jobs j USING unnest($1::text[], $2::text[], $3::integer[]) AS gone (cluster_name, job_id, run)
WHERE j.cluster_name = gone.cluster_name AND j.job_id = gone.job_id AND j.run = gone.run
