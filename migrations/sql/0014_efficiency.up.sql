-- The figures of a run as its report has them (jobtrail.domain.efficiency). CPU time is set against the CPUs that it is
-- of, and against the time in which the run could use them, so not while it was suspended, as far as Slurm told of that.
-- Of nodes with different memory limits the one counts that came nearest to its own; a limit that no kernel has, which a
-- node's word may hold, is none. How long a run lasted whose end nobody knows is not known.
--
-- The rows of job_nodes are looked at in subqueries of the columns that need them, and only where a run has several
-- nodes, so that a question about other columns, or about runs on one node, reads none.
CREATE OR REPLACE VIEW job_efficiency AS
SELECT j.cluster_name, j.job_id, j.run, j.user_name, j.account, j.partition, j.state, j.verdict,
       j.start_time, j.end_time, m.elapsed_seconds, j.cpus_allocated, j.cpu_seconds,
       j.cpu_seconds / nullif(c.cpus_measured * a.active_seconds, 0) AS cpu_efficiency,
       j.memory_peak_bytes, j.memory_limit_bytes,
       coalesce(
           CASE WHEN j.nodes_reporting > 1 THEN (
               SELECT max(n.memory_peak_bytes::double precision / l.memory_limit_bytes)
               FROM job_nodes n
               CROSS JOIN LATERAL (
                   SELECT CASE WHEN (n.projection -> 'usage' ->> 'memory_limit_bytes')::numeric BETWEEN 1 AND 9223372036854775807
                               THEN (n.projection -> 'usage' ->> 'memory_limit_bytes')::bigint END AS memory_limit_bytes
               ) l
               WHERE n.cluster_name = j.cluster_name AND n.job_id = j.job_id AND n.run = j.run
                 AND n.memory_peak_bytes IS NOT NULL
               HAVING count(DISTINCT l.memory_limit_bytes) > 1
           ) END,
           j.memory_peak_bytes::double precision
               / nullif(coalesce(j.memory_limit_bytes, j.memory_requested_bytes / nullif(j.nodes_total, 0)), 0)
       ) AS memory_efficiency,
       j.coverage_ratio, j.sample_count, j.nodes_reporting, j.nodes_total,
       j.gpus_allocated, j.gpu_seconds,
       j.gpu_busy_seconds / nullif(j.gpu_seconds, 0) AS gpu_efficiency,
       j.gpu_unused_seconds / nullif(j.gpu_seconds, 0) AS gpu_unused_ratio,
       j.gpu_seconds / nullif(j.gpus_allocated * m.elapsed_seconds, 0) AS gpu_coverage_ratio,
       j.suspended_seconds,
       a.active_seconds,
       c.cpus_measured,
       CASE WHEN j.nodes_reporting > 1 THEN (
           SELECT (array_agg(n.node ORDER BY n.memory_peak_bytes::double precision / l.memory_limit_bytes DESC,
                             n.node COLLATE "C" DESC))[1]
           FROM job_nodes n
           CROSS JOIN LATERAL (
               SELECT CASE WHEN (n.projection -> 'usage' ->> 'memory_limit_bytes')::numeric BETWEEN 1 AND 9223372036854775807
                           THEN (n.projection -> 'usage' ->> 'memory_limit_bytes')::bigint END AS memory_limit_bytes
           ) l
           WHERE n.cluster_name = j.cluster_name AND n.job_id = j.job_id AND n.run = j.run
             AND n.memory_peak_bytes IS NOT NULL AND l.memory_limit_bytes IS NOT NULL
           HAVING count(DISTINCT l.memory_limit_bytes) > 1
       ) END AS memory_efficiency_node
FROM jobs j
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM CASE WHEN j.state IN ('pending', 'running') THEN j.last_sample_at ELSE j.end_time END
                              - j.start_time)::double precision AS elapsed_seconds
) m
CROSS JOIN LATERAL (
    SELECT m.elapsed_seconds - least(coalesce(j.suspended_seconds, 0), m.elapsed_seconds) AS active_seconds
) a
CROSS JOIN LATERAL (
    SELECT CASE WHEN j.nodes_reporting > 0 AND j.nodes_reporting < j.nodes_total
                     AND j.usage_sources ->> 'cpu' IS DISTINCT FROM 'slurm_accounting'
           THEN (
               SELECT CASE WHEN bool_and(n.cpus IS NOT NULL) THEN sum(n.cpus) END
               FROM job_nodes n
               WHERE n.cluster_name = j.cluster_name AND n.job_id = j.job_id AND n.run = j.run AND n.sample_count > 0
           )
           ELSE j.cpus_allocated END AS cpus_measured
) c;
COMMENT ON VIEW job_efficiency IS 'CPU time used of what the CPUs that it is of could give while the run was not suspended, peak memory of the memory limit, of nodes with different limits the one nearest to its own; of a running job up to its last sample. NULL where a part is unknown. Usage covers nodes_reporting of nodes_total nodes; GPU figures are of the time in which GPUs were looked at, gpu_coverage_ratio of what was allocated.';
COMMENT ON COLUMN job_efficiency.active_seconds IS 'elapsed_seconds without suspended_seconds, as far as Slurm has told of them.';
COMMENT ON COLUMN job_efficiency.cpus_measured IS 'The CPUs that cpu_seconds is of: those of the nodes that told of it.';
COMMENT ON COLUMN job_efficiency.memory_efficiency_node IS 'The node that memory_efficiency is of, where nodes have different limits; else NULL.';
