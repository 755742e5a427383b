-- Runs that are over and whose node told no end of its part. $1 clusters, $2 job ids, $3 nodes, $4 openers of the parts
SELECT wanted.ref, j.projection
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS wanted (cluster_name, job_id, node, ref)
JOIN job_nodes n USING (cluster_name, job_id, node)
JOIN jobs j USING (cluster_name, job_id, run)
WHERE n.ended_at IS NULL AND j.end_time IS NOT NULL
    AND (n.opened_by = wanted.ref::uuid OR n.projection -> 'also_opened_by' ? wanted.ref)
