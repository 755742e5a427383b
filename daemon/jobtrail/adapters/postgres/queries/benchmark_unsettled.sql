-- Runs whose links or energy are open, those never looked at first, each oldest first. $1 limit
SELECT run_uid::text, (extract(epoch FROM started_at) * 1000000)::bigint AS started_us,
       (extract(epoch FROM ended_at) * 1000000)::bigint AS ended_us, status, claims, output_tokens,
       ARRAY(SELECT (extract(epoch FROM lower(span)) * 1000000)::bigint FROM unnest(measured) AS span ORDER BY span) AS begins_us,
       ARRAY(SELECT (extract(epoch FROM upper(span)) * 1000000)::bigint FROM unnest(measured) AS span ORDER BY span) AS ends_us,
       user_name, from_job,
       uid, (extract(epoch FROM stored_at) * 1000000)::bigint AS received_us
FROM benchmark_run
WHERE settled_at IS NULL AND stored_at > now() - interval '7 days'
ORDER BY coalesce(looked_at, stored_at), run_uid
LIMIT $1::bigint
