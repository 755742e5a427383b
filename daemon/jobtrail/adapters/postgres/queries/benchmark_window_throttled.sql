-- Why clocks of GPUs were held down. $1 nodes and $2 ids of the GPUs, in pairs, $3 begin, $4 end, $5 reasons to look for
SELECT DISTINCT reason
FROM gpu_samples g
JOIN unnest($1::text[], $2::text[]) AS held (node, gpu_id) USING (node, gpu_id)
CROSS JOIN unnest(g.throttle_reasons) AS told (reason)
WHERE g.sampled_at BETWEEN $3 AND $4 AND reason = ANY ($5::text[])
ORDER BY reason
