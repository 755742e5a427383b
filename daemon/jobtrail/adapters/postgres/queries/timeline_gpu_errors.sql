-- Errors that the drivers of a run's GPUs told, the first hundred. $1 cluster, $2 job id, $3 openers, $4 begin, $5 end
SELECT s.sampled_at, s.node, s.gpu_id, told.event ->> 'code' AS code
FROM gpu_samples s CROSS JOIN jsonb_array_elements(s.events) AS told (event)
WHERE s.job_id = $2 AND s.cluster_name = $1 AND s.sampled_at BETWEEN $4::timestamptz - interval '1 minute' AND $5::timestamptz + interval '1 minute' AND s.opened_by = ANY ($3::uuid[])
  AND s.events IS NOT NULL
ORDER BY s.sampled_at, s.gpu_id
LIMIT 100
