-- Nodes by name. $1 state or state flag, $2 partition, $3 cluster, $4 limit, $5 offset; NULL is any
SELECT
    cluster_name, node, state, state_flags, reason, cpus, cpus_allocated, cpu_load, memory_bytes,
    memory_allocated_bytes, memory_free_bytes, gpus, gpus_allocated, boot_time, slurmd_start_time, slurmd_version,
    partitions, first_seen_at, updated_at, state_changed_at
FROM nodes
WHERE ($1::text IS NULL OR state = $1 OR $1 = ANY (state_flags))
    AND ($2::text IS NULL OR partitions @> ARRAY[$2])
    AND ($3::text IS NULL OR cluster_name = $3)
ORDER BY cluster_name, node
LIMIT $4::bigint OFFSET $5::bigint
