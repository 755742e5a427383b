-- Delete what some runs had of GPUs. $1 clusters, $2 job ids, $3 runs
DELETE FROM job_gpus g USING unnest($1::text[], $2::text[], $3::integer[]) AS gone (cluster_name, job_id, run)
WHERE g.cluster_name = gone.cluster_name AND g.job_id = gone.job_id AND g.run = gone.run
