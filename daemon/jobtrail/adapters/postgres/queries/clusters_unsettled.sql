-- Clusters with runs of the last week that Slurm is to be asked about; two are as good as many
WITH RECURSIVE clusters AS (  -- one look into the primary key for each, however many runs it has
    (SELECT cluster_name FROM jobs ORDER BY cluster_name LIMIT 1)
    UNION ALL
    SELECT following.cluster_name
    FROM clusters
    CROSS JOIN LATERAL (
        SELECT jobs.cluster_name
        FROM jobs
        WHERE jobs.cluster_name > clusters.cluster_name
        ORDER BY jobs.cluster_name
        LIMIT 1
    ) AS following
)
SELECT cluster_name
FROM clusters
CROSS JOIN LATERAL (
    (
        SELECT FROM jobs
        WHERE jobs.cluster_name = clusters.cluster_name
            AND awaits IN ('facts', 'outcome')
            AND coalesce(end_time, start_time, submit_time, 'infinity') > now() - interval '7 days'
            AND updated_at > now() - interval '7 days'
        ORDER BY coalesce(end_time, start_time, submit_time, 'infinity') DESC  -- so that an index serves
        LIMIT 1
    )
    UNION ALL
    (
        SELECT FROM jobs
        WHERE jobs.cluster_name = clusters.cluster_name
            AND awaits = 'usage'
            AND coalesce(end_time, start_time, submit_time, 'infinity') > now() - interval '7 days'
            AND updated_at > now() - interval '7 days'
        ORDER BY coalesce(end_time, start_time, submit_time, 'infinity') DESC  -- so that an index serves
        LIMIT 1
    )
    UNION ALL
    (
        SELECT FROM jobs
        WHERE jobs.cluster_name = clusters.cluster_name
            AND awaits IN ('facts', 'end')
            AND updated_at > now() - interval '7 days'
        ORDER BY start_time DESC
        LIMIT 1
    )
    LIMIT 1
) AS one
LIMIT 2
