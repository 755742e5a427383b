-- A run's energy samples in a window and next to it. $1 cluster, $2 job id, $3 run, $4 begin, $5 end
-- Next to it: of each node, for GPUs and for CPUs, the last before and the first after it.
WITH opener AS (
    SELECT n.opened_by AS ref
    FROM job_nodes n
    WHERE (n.cluster_name, n.job_id, n.run) = ($1, $2, $3)
    UNION
    SELECT also.ref::uuid
    FROM job_nodes n CROSS JOIN jsonb_array_elements_text(coalesce(n.projection -> 'also_opened_by', '[]')) AS also (ref)
    WHERE (n.cluster_name, n.job_id, n.run) = ($1, $2, $3)
)
SELECT DISTINCT s.*
FROM opener o
CROSS JOIN LATERAL (
    (SELECT * FROM energy_samples e WHERE e.opened_by = o.ref AND e.sampled_at BETWEEN $4 AND $5)
    UNION ALL (
        SELECT * FROM energy_samples e WHERE e.opened_by = o.ref AND e.sampled_at < $4 AND e.gpu_joules IS NOT NULL
        ORDER BY e.sampled_at DESC LIMIT 1
    )
    UNION ALL (
        SELECT * FROM energy_samples e WHERE e.opened_by = o.ref AND e.sampled_at < $4 AND e.cpu_joules IS NOT NULL
        ORDER BY e.sampled_at DESC LIMIT 1
    )
    UNION ALL (
        SELECT * FROM energy_samples e WHERE e.opened_by = o.ref AND e.sampled_at > $5 AND e.gpu_joules IS NOT NULL
        ORDER BY e.sampled_at LIMIT 1
    )
    UNION ALL (
        SELECT * FROM energy_samples e WHERE e.opened_by = o.ref AND e.sampled_at > $5 AND e.cpu_joules IS NOT NULL
        ORDER BY e.sampled_at LIMIT 1
    )
) AS s
ORDER BY s.node, s.sampled_at
