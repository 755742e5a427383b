-- All runs of some jobs, oldest first, also withdrawn ones. $1 cluster names, $2 job ids
SELECT j.cluster_name, j.job_id, j.run, j.projection
FROM unnest($1::text[], $2::text[]) AS wanted (cluster_name, job_id)
JOIN jobs j ON j.cluster_name = wanted.cluster_name AND j.job_id = wanted.job_id
UNION ALL
SELECT w.cluster_name, w.job_id, w.run, w.projection
FROM unnest($1::text[], $2::text[]) AS wanted (cluster_name, job_id)
JOIN jobs_withdrawn w ON w.cluster_name = wanted.cluster_name AND w.job_id = wanted.job_id
ORDER BY run
