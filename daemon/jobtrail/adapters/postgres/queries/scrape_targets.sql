-- Nodes that have or should have a daemon: Slurm's, and those that wrote to the trail within a week. $1 cluster, $2 partition; NULL is any
-- The database's own chain, @store, is no daemon's, and neither are those of `jobtrail import-sacct` and of SEED_DEMO.
WITH writers AS (
    SELECT DISTINCT ON (chain.node) chain.node, last.cluster_name
    FROM audit_chain AS chain
    LEFT JOIN LATERAL (
        SELECT log.cluster_name, log.changed_by = 'cli' AND (log.kind = 'slurm_reported' OR log.source = 'synthetic') AS no_daemon
        FROM audit_log AS log
        WHERE log.chain_id = chain.chain_id AND log.seq > chain.head_seq - 100 AND log.cluster_name IS NOT NULL
        ORDER BY log.seq DESC
        LIMIT 1
    ) AS last ON true
    WHERE chain.updated_at > now() - interval '7 days'
        AND chain.node <> '@store'
        AND last.no_daemon IS NOT TRUE
        AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.node = chain.node)
    ORDER BY chain.node, chain.updated_at DESC -- a node whose spool was lost has more than one chain
), known AS (
    SELECT cluster_name, node, state, state_flags, partitions FROM nodes
    UNION ALL
    SELECT cluster_name, node, NULL, '{}', '{}' FROM writers
)
SELECT cluster_name, node, state, state_flags, partitions
FROM known
WHERE ($1::text IS NULL OR cluster_name = $1)
    AND ($2::text IS NULL OR partitions @> ARRAY[$2])
ORDER BY cluster_name NULLS LAST, node
