-- Some 10,000,000 looks at the runs of the last seven days, hour by hour as they would have come in, and from the same
-- runs 700,000 looks at energy and as many at GPUs.
DO $body$
DECLARE
    begun timestamptz;
    step interval := (
        SELECT interval '1 s' * sum(extract(epoch FROM coalesce(end_time, now()) - greatest(start_time, now() - interval '7 days'))) / 1e7
        FROM volume_node WHERE coalesce(end_time, now()) > now() - interval '7 days');
BEGIN
    FOR begun IN SELECT generate_series(now() - interval '7 days', now() - interval '1 hour', interval '1 hour') LOOP
        CREATE TEMPORARY TABLE here AS
        SELECT * FROM volume_node WHERE start_time < begun + interval '1 hour' AND coalesce(end_time, now()) > begun;
        INSERT INTO job_samples (
            sampled_at, cluster_name, job_id, node, opened_by, source, cpu_percent, cpu_seconds, cpu_user_seconds,
            cpu_system_seconds, memory_current_bytes, memory_peak_bytes, memory_limit_bytes, memory_rss_bytes, oom_kills,
            processes, threads
        )
        SELECT at, 'c1', job_id, node, opened_by, 'cgroup_v2', 100 * r3, cpus * r3, cpus * r3 * 0.9, cpus * r3 * 0.1,
               64e9 * r5, 64e9 * r5, 64e9, 60e9 * r5, 0, 5, 40
        FROM generate_series(begun, begun + interval '1 hour' - interval '1 ms', step) AS at
        JOIN here ON at BETWEEN start_time AND coalesce(end_time, now()) ORDER BY at;
        INSERT INTO energy_samples (sampled_at, cluster_name, job_id, node, opened_by, gpu_joules, cpu_joules, covered_seconds)
        SELECT at, 'c1', job_id, node, opened_by, gpus * extract(epoch FROM at - start_time) * 250,
               cpus * extract(epoch FROM at - start_time) * 5, extract(epoch FROM at - start_time)
        FROM generate_series(begun, begun + interval '1 hour' - interval '1 ms', step * 14) AS at
        JOIN here ON at BETWEEN start_time AND coalesce(end_time, now()) ORDER BY at;
        INSERT INTO gpu_samples (
            sampled_at, node, gpu_id, vendor, cluster_name, job_id, opened_by, utilization_percent, memory_used_bytes,
            memory_total_bytes, power_watts, temperature_celsius
        )
        SELECT at, node, 'GPU-' || node || '-' || g, 'nvidia', 'c1', job_id, opened_by,
               CASE WHEN r5 < 0.1 THEN 0 ELSE 100 * r5 END, 1e9, 80e9, 250, 60
        FROM generate_series(begun, begun + interval '1 hour' - interval '1 ms', step * 14) AS at
        JOIN here ON at BETWEEN start_time AND coalesce(end_time, now())
        CROSS JOIN LATERAL generate_series(0, gpus - 1) AS g WHERE gpus IS NOT NULL ORDER BY at;
        DROP TABLE here;
    END LOOP;
END
$body$;
