-- Replace what is held of a cluster's nodes by a newer answer. $1 cluster, $2 when Slurm was asked, $3 JSON array of rows of nodes
WITH told AS (
    SELECT * FROM jsonb_populate_recordset(NULL::nodes, $3::jsonb)
), gone AS (
    DELETE FROM nodes
    WHERE cluster_name = $1 AND updated_at < $2 AND node NOT IN (SELECT told.node FROM told)
)
INSERT INTO nodes (
    cluster_name, node, state, state_flags, reason, cpus, cpus_allocated, cpu_load, memory_bytes,
    memory_allocated_bytes, memory_free_bytes, gpus, gpus_allocated, boot_time, slurmd_start_time, slurmd_version,
    partitions, first_seen_at, updated_at, state_changed_at
)
SELECT
    $1, node, state, state_flags, reason, cpus, cpus_allocated, cpu_load, memory_bytes,
    memory_allocated_bytes, memory_free_bytes, gpus, gpus_allocated, boot_time, slurmd_start_time, slurmd_version,
    partitions, $2, $2, $2
FROM told
ORDER BY node -- two servers that write at once lock the rows in one order
ON CONFLICT (cluster_name, node) DO UPDATE SET
    state_changed_at = CASE
        WHEN (nodes.state, nodes.state_flags) IS DISTINCT FROM (EXCLUDED.state, EXCLUDED.state_flags)
        THEN EXCLUDED.updated_at
        ELSE nodes.state_changed_at
    END,
    state = EXCLUDED.state,
    state_flags = EXCLUDED.state_flags,
    reason = EXCLUDED.reason,
    cpus = EXCLUDED.cpus,
    cpus_allocated = EXCLUDED.cpus_allocated,
    cpu_load = EXCLUDED.cpu_load,
    memory_bytes = EXCLUDED.memory_bytes,
    memory_allocated_bytes = EXCLUDED.memory_allocated_bytes,
    memory_free_bytes = EXCLUDED.memory_free_bytes,
    gpus = EXCLUDED.gpus,
    gpus_allocated = EXCLUDED.gpus_allocated,
    boot_time = EXCLUDED.boot_time,
    slurmd_start_time = EXCLUDED.slurmd_start_time,
    slurmd_version = EXCLUDED.slurmd_version,
    partitions = EXCLUDED.partitions,
    updated_at = EXCLUDED.updated_at
WHERE nodes.updated_at <= EXCLUDED.updated_at
