DROP VIEW job_efficiency;
CREATE VIEW job_efficiency AS
SELECT j.cluster_name, j.job_id, j.run, j.user_name, j.account, j.partition, j.state, j.verdict,
       j.start_time, j.end_time, m.elapsed_seconds, j.cpus_allocated, j.cpu_seconds,
       j.cpu_seconds / nullif(j.cpus_allocated * m.elapsed_seconds, 0) AS cpu_efficiency,
       j.memory_peak_bytes, j.memory_limit_bytes,
       j.memory_peak_bytes::double precision / nullif(j.memory_limit_bytes, 0) AS memory_efficiency,
       j.coverage_ratio, j.sample_count, j.nodes_reporting, j.nodes_total,
       j.gpus_allocated, j.gpu_seconds,
       j.gpu_busy_seconds / nullif(j.gpu_seconds, 0) AS gpu_efficiency,
       j.gpu_unused_seconds / nullif(j.gpu_seconds, 0) AS gpu_unused_ratio,
       j.gpu_seconds / nullif(j.gpus_allocated * m.elapsed_seconds, 0) AS gpu_coverage_ratio
FROM jobs j
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM coalesce(j.end_time, j.last_sample_at) - j.start_time)::double precision AS elapsed_seconds
) m;
COMMENT ON VIEW job_efficiency IS 'CPU time used of CPU time allocated, peak memory of the memory limit; of a running job up to its last sample. NULL where a part is unknown. Usage covers nodes_reporting of nodes_total nodes; GPU figures are of the time in which GPUs were looked at, gpu_coverage_ratio of what was allocated.';
SELECT jobtrail_apply_grants();
