-- Figures of runs by period, bucket and group. $1 begin of the previous period, or $2 begin, $3 end, $4 bucket in seconds, $5 users, $6 accounts, $7 partitions, $8 clusters, $9 states, $10 nodes, $11 uid, NULL is any; $12 group by, $13 whether by node, $14 metric to rank groups by, $15 groups at most, $16 rows at most
-- Each figure has beside it how many runs it rests on. A row without a bucket is of the whole period.
WITH runs AS (
    SELECT true AS began, j.start_time AS at, j.* FROM jobs j
    UNION ALL
    SELECT false AS began, j.end_time AS at, j.* FROM jobs j
),
parts AS (
    SELECT
        r.began,
        r.at >= $2 AS current,
        floor(extract(epoch FROM r.at - CASE WHEN r.at >= $2 THEN $2 ELSE $1 END) / $4::integer)::integer AS bucket,
        ARRAY[
            CASE WHEN 'user' = ANY ($12::text[]) THEN r.user_name END,
            CASE WHEN 'account' = ANY ($12) THEN r.account END,
            CASE WHEN 'partition' = ANY ($12) THEN r.partition END,
            CASE WHEN 'qos' = ANY ($12) THEN r.qos END,
            CASE WHEN 'state' = ANY ($12) THEN r.state END,
            CASE WHEN 'cluster' = ANY ($12) THEN r.cluster_name END,
            CASE WHEN 'node' = ANY ($12) THEN n.node END
        ] AS keys,
        extract(epoch FROM r.start_time - r.submit_time)::double precision AS wait_seconds,
        nullif(r.verdict, 'unknown') AS verdict,
        -- A number of GPUs that is not known may be any.
        r.gpus_allocated IS DISTINCT FROM 0 AS may_have_gpus,
        extract(epoch FROM CASE WHEN $13::boolean THEN coalesce(n.ended_at, r.end_time) - coalesce(n.started_at, r.start_time)
                                ELSE r.end_time - r.start_time END)::double precision AS run_seconds,
        coalesce(r.suspended_seconds, 0) AS suspended_seconds,
        -- Of a run: the CPUs that its CPU time is of, as in the view job_efficiency.
        CASE WHEN $13 THEN n.cpus
             WHEN r.nodes_reporting > 0 AND r.nodes_reporting < r.nodes_total
                  AND r.usage_sources ->> 'cpu' IS DISTINCT FROM 'slurm_accounting'
             THEN (SELECT CASE WHEN bool_and(p.cpus IS NOT NULL) THEN sum(p.cpus) END FROM job_nodes p
                   WHERE p.cluster_name = r.cluster_name AND p.job_id = r.job_id AND p.run = r.run AND p.sample_count > 0)
             ELSE r.cpus_allocated END AS cpus,
        CASE WHEN $13 THEN n.cpu_seconds ELSE r.cpu_seconds END AS cpu_seconds,
        CASE WHEN $13 THEN n.memory_peak_bytes ELSE r.memory_peak_bytes END AS memory_peak_bytes,
        CASE WHEN $13 THEN n.gpu_seconds ELSE r.gpu_seconds END AS gpu_seconds,
        CASE WHEN $13 THEN n.gpu_busy_seconds ELSE r.gpu_busy_seconds END AS gpu_busy_seconds,
        CASE WHEN $13 THEN n.gpu_unused_seconds ELSE r.gpu_unused_seconds END AS gpu_unused_seconds,
        CASE WHEN $13 THEN n.energy_joules ELSE r.energy_joules END AS energy_joules,
        CASE WHEN $13 THEN n.emissions_grams ELSE r.emissions_grams END AS emissions_grams
    FROM runs r
    LEFT JOIN job_nodes n ON $13 AND n.cluster_name = r.cluster_name AND n.job_id = r.job_id AND n.run = r.run
    WHERE r.at >= $1::timestamptz AND r.at < $3::timestamptz
      AND ($5::text[] IS NULL OR r.user_name = ANY ($5))
      AND ($6::text[] IS NULL OR r.account = ANY ($6))
      AND ($7::text[] IS NULL OR r.partition = ANY ($7))
      AND ($8::text[] IS NULL OR r.cluster_name = ANY ($8))
      AND ($9::text[] IS NULL OR r.state = ANY ($9))
      AND ($10::text[] IS NULL OR n.node = ANY ($10))
      AND ($11::bigint IS NULL OR r.uid = $11)
),
measured AS (
    SELECT
        *,
        NOT began AS ended,
        (run_seconds - least(suspended_seconds, run_seconds)) * cpus AS cpu_seconds_allocated,
        verdict IN ('failed', 'timeout', 'out_of_memory', 'node_fail', 'killed_by_signal') AS failed
    FROM parts
),
cells AS (
    SELECT
        current,
        bucket,
        keys,
        grouping(bucket) = 1 AS whole,
        count(*) FILTER (WHERE began) AS of_started,
        count(*) FILTER (WHERE ended) AS of_ended,
        count(*) FILTER (WHERE ended AND may_have_gpus) AS of_gpus,
        count(*) FILTER (WHERE began) AS jobs_started,
        count(*) FILTER (WHERE began) AS jobs_started_known,
        count(*) FILTER (WHERE ended) AS jobs_ended,
        count(*) FILTER (WHERE ended) AS jobs_ended_known,
        count(*) FILTER (WHERE ended AND failed) AS jobs_failed,
        count(*) FILTER (WHERE ended AND verdict IS NOT NULL) AS jobs_failed_known,
        count(*) FILTER (WHERE ended AND failed)::double precision
            / nullif(count(*) FILTER (WHERE ended AND verdict IS NOT NULL), 0) AS failed_ratio,
        count(*) FILTER (WHERE ended AND verdict IS NOT NULL) AS failed_ratio_known,
        avg(wait_seconds) FILTER (WHERE began AND wait_seconds >= 0) AS wait_seconds_mean,
        count(*) FILTER (WHERE began AND wait_seconds >= 0) AS wait_seconds_mean_known,
        sum(run_seconds) FILTER (WHERE ended) AS run_seconds,
        count(run_seconds) FILTER (WHERE ended) AS run_seconds_known,
        sum(cpu_seconds) FILTER (WHERE ended) AS cpu_seconds,
        count(cpu_seconds) FILTER (WHERE ended) AS cpu_seconds_known,
        sum(cpu_seconds) FILTER (WHERE ended AND cpu_seconds_allocated > 0)
            / sum(cpu_seconds_allocated) FILTER (WHERE ended AND cpu_seconds_allocated > 0 AND cpu_seconds IS NOT NULL)
            AS cpu_efficiency,
        count(cpu_seconds) FILTER (WHERE ended AND cpu_seconds_allocated > 0) AS cpu_efficiency_known,
        max(memory_peak_bytes) FILTER (WHERE ended) AS memory_peak_max,
        count(memory_peak_bytes) FILTER (WHERE ended) AS memory_peak_max_known,
        sum(gpu_seconds) FILTER (WHERE ended AND may_have_gpus) AS gpu_seconds,
        count(gpu_seconds) FILTER (WHERE ended AND may_have_gpus) AS gpu_seconds_known,
        100 * sum(gpu_busy_seconds) FILTER (WHERE ended AND may_have_gpus AND gpu_seconds > 0)
            / nullif(sum(gpu_seconds) FILTER (WHERE ended AND may_have_gpus AND gpu_busy_seconds IS NOT NULL), 0)
            AS gpu_utilization_mean,
        count(gpu_busy_seconds) FILTER (WHERE ended AND may_have_gpus AND gpu_seconds > 0) AS gpu_utilization_mean_known,
        sum(gpu_unused_seconds) FILTER (WHERE ended AND may_have_gpus) AS gpu_unused_seconds,
        count(gpu_unused_seconds) FILTER (WHERE ended AND may_have_gpus) AS gpu_unused_seconds_known,
        sum(energy_joules) FILTER (WHERE ended) AS energy_joules,
        count(energy_joules) FILTER (WHERE ended) AS energy_joules_known,
        sum(emissions_grams) FILTER (WHERE ended) AS emissions_grams,
        count(emissions_grams) FILTER (WHERE ended) AS emissions_grams_known
    FROM measured
    GROUP BY GROUPING SETS ((current, bucket, keys), (current, keys))
),
heights AS (
    SELECT keys, CASE $14::text
        WHEN 'jobs_started' THEN jobs_started
        WHEN 'jobs_ended' THEN jobs_ended
        WHEN 'jobs_failed' THEN jobs_failed
        WHEN 'failed_ratio' THEN failed_ratio
        WHEN 'wait_seconds_mean' THEN wait_seconds_mean
        WHEN 'run_seconds' THEN run_seconds
        WHEN 'cpu_seconds' THEN cpu_seconds
        WHEN 'cpu_efficiency' THEN cpu_efficiency
        WHEN 'memory_peak_max' THEN memory_peak_max
        WHEN 'gpu_seconds' THEN gpu_seconds
        WHEN 'gpu_utilization_mean' THEN gpu_utilization_mean
        WHEN 'gpu_unused_seconds' THEN gpu_unused_seconds
        WHEN 'energy_joules' THEN energy_joules
        WHEN 'emissions_grams' THEN emissions_grams
        END AS height, current
    FROM cells WHERE whole
),
ranked AS (
    SELECT
        keys,
        row_number() OVER (ORDER BY max(height) FILTER (WHERE current) DESC NULLS LAST, keys) AS rank,
        count(*) OVER () AS groups_total
    FROM heights GROUP BY keys
)
SELECT ranked.rank, ranked.groups_total, cells.*
FROM ranked JOIN cells USING (keys)
WHERE ranked.rank <= $15::bigint
ORDER BY cells.current, cells.bucket NULLS FIRST, ranked.rank
LIMIT $16::bigint
