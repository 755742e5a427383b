-- All runs of some jobs, oldest first. $1 cluster names, $2 job ids
SELECT j.cluster_name, j.job_id, j.run, j.projection
FROM unnest($1::text[], $2::text[]) AS wanted (cluster_name, job_id)
JOIN jobs j ON j.cluster_name = wanted.cluster_name AND j.job_id = wanted.job_id
ORDER BY j.run
