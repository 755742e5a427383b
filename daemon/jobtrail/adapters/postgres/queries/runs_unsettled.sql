-- Runs of the last week that Slurm is to be asked about: outcomes first, then usage; each newest first. $1 cluster, $2 limit
SELECT projection
FROM (
    (
        SELECT projection, awaits, coalesce(end_time, start_time, submit_time, 'infinity') AS moment
        FROM jobs
        WHERE cluster_name = $1
            AND awaits IN ('facts', 'outcome')
            AND coalesce(end_time, start_time, submit_time, 'infinity') > now() - interval '7 days'
            AND updated_at > now() - interval '7 days'
        ORDER BY moment DESC
        LIMIT $2
    )
    UNION ALL
    (
        SELECT projection, awaits, coalesce(end_time, start_time, submit_time, 'infinity') AS moment
        FROM jobs
        WHERE cluster_name = $1
            AND awaits = 'usage'
            AND coalesce(end_time, start_time, submit_time, 'infinity') > now() - interval '7 days'
            AND updated_at > now() - interval '7 days'
        ORDER BY moment DESC
        LIMIT $2
    )
) AS wanted
ORDER BY awaits = 'usage', moment DESC
LIMIT $2
