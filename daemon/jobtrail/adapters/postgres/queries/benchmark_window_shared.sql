-- GPUs that other runs held. $1 cluster, $2 job id, $3 run, $4 nodes, $5 ids of the run's GPUs, $6 begin, $7 end
-- Nodes and ids of GPUs are in pairs.
SELECT DISTINCT g.gpu_id
FROM unnest($4::text[], $5::text[]) AS held (node, gpu_id)
JOIN job_gpus g USING (node, gpu_id)
JOIN job_nodes n USING (cluster_name, job_id, run, node)
WHERE g.resolved_by IS NOT NULL  -- or it is only evidence of a process where it should not be
    AND (g.cluster_name, g.job_id, g.run) <> ($1, $2, $3)
    AND n.started_at < $7 AND coalesce(n.ended_at, 'infinity') > $6
ORDER BY g.gpu_id
