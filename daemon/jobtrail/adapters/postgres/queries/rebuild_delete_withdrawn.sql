-- Delete some runs that are withdrawn. $1 clusters, $2 job ids, $3 runs
DELETE FROM jobs_withdrawn w USING unnest($1::text[], $2::text[], $3::integer[]) AS gone (cluster_name, job_id, run)
WHERE w.cluster_name = gone.cluster_name AND w.job_id = gone.job_id AND w.run = gone.run
