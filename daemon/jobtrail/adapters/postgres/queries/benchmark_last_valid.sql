-- The last valid run of each recipe, model and hardware of a cluster: those of a job first, each newest first. $1 ended after, $2 highest error rate, $3 limit
WITH last AS (
    SELECT DISTINCT ON (cluster_name, recipe_name, model, hardware)
           run_uid, cluster_name, recipe_name, model, hardware, ended_at, claims = '[]' AS is_of_no_job
    FROM benchmark_run
    WHERE ended_at > $1 AND status = 'ok' AND counts AND coalesce(error_rate, 0) <= $2::double precision
    ORDER BY cluster_name, recipe_name, model, hardware, ended_at DESC, run_uid DESC
)
SELECT last.run_uid::text, last.cluster_name AS cluster, coalesce(last.recipe_name, '') AS recipe,
       coalesce(last.model, '') AS model, last.hardware, (extract(epoch FROM last.ended_at) * 1000000)::bigint AS ended_us,
       (SELECT jsonb_object_agg(status, runs) FROM (
            SELECT r.status, count(*) AS runs FROM benchmark_run r
            WHERE r.hardware = last.hardware AND r.cluster_name = last.cluster_name
              AND r.recipe_name IS NOT DISTINCT FROM last.recipe_name AND r.model IS NOT DISTINCT FROM last.model
            GROUP BY r.status
        ) AS counted) AS runs_by_status
FROM last
ORDER BY last.is_of_no_job, last.ended_at DESC, last.run_uid
LIMIT $3::bigint
