-- All runs of some jobs. $1 clusters, NULL is any, $2 job ids
SELECT DISTINCT j.cluster_name AS cluster, j.job_id, j.run, (extract(epoch FROM j.start_time) * 1000000)::bigint AS start_us,
       (extract(epoch FROM j.end_time) * 1000000)::bigint AS end_us, j.user_name,
       j.state NOT IN ('pending', 'running') AS is_over, j.restart_count
FROM unnest($1::text[], $2::text[]) AS wanted (cluster_name, job_id)
JOIN jobs j ON j.job_id = wanted.job_id AND (wanted.cluster_name IS NULL OR j.cluster_name = wanted.cluster_name)
ORDER BY j.cluster_name, j.job_id, j.run
