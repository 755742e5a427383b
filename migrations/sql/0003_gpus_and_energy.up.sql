-- What runs had of GPUs, the energy they used and what it emitted.

CREATE TABLE job_gpus (
    cluster_name text NOT NULL,
    job_id text NOT NULL,
    run integer NOT NULL,
    node text NOT NULL,
    gpu_id text NOT NULL,
    vendor text,
    minor integer,
    name text,
    memory_total_bytes bigint,
    resolved_by text,
    observed_seconds double precision,
    busy_seconds double precision,
    unused_seconds double precision,
    utilization_mean_percent double precision,
    memory_peak_bytes bigint,
    energy_joules double precision,
    energy_covered_seconds double precision,
    energy_coverage_ratio double precision,
    energy_method text,
    errors jsonb,
    attribution_mismatch text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_name, job_id, run, node, gpu_id)
);
CREATE INDEX job_gpus_gpu_id_idx ON job_gpus (gpu_id);
CREATE INDEX job_gpus_errors_idx ON job_gpus (node, gpu_id) WHERE errors IS NOT NULL;
COMMENT ON TABLE job_gpus IS 'One row for each GPU of a run on a node, or instance of one (MIG), used or not.';
COMMENT ON COLUMN job_gpus.gpu_id IS 'The driver''s UUID, for AMD the PCI bus id; unresolved:<position> is one that Slurm allocated and that was not found.';
COMMENT ON COLUMN job_gpus.minor IS 'Number of the device file: /dev/nvidia<minor>, /dev/dri/renderD<minor>.';
COMMENT ON COLUMN job_gpus.resolved_by IS 'How the position that Slurm gave became this GPU.';
COMMENT ON COLUMN job_gpus.observed_seconds IS 'Time for which it was looked at while the run held it.';
COMMENT ON COLUMN job_gpus.busy_seconds IS 'Of observed_seconds: utilisation times time.';
COMMENT ON COLUMN job_gpus.unused_seconds IS 'Of observed_seconds: time in which no process of the run was on it.';
COMMENT ON COLUMN job_gpus.energy_coverage_ratio IS 'energy_covered_seconds of the node''s part of the run; NULL while it runs or unknown.';
COMMENT ON COLUMN job_gpus.energy_method IS 'counter, integrated (from power), apportioned (shared hardware), or mixed.';
COMMENT ON COLUMN job_gpus.errors IS 'The driver''s error code, for NVIDIA an XID, and how often it was told; NULL is none.';
COMMENT ON COLUMN job_gpus.attribution_mismatch IS 'Evidence that another job used this GPU, or this run one it does not hold.';

CREATE TABLE gpu_samples (
    sampled_at timestamptz NOT NULL,
    node text NOT NULL,
    gpu_id text NOT NULL,
    vendor text NOT NULL,
    cluster_name text,
    job_id text,
    opened_by uuid,
    utilization_percent double precision,
    memory_utilization_percent double precision,
    memory_used_bytes bigint,
    memory_total_bytes bigint,
    power_watts double precision,
    power_limit_watts double precision,
    energy_joules double precision,
    temperature_celsius double precision,
    memory_temperature_celsius double precision,
    sm_clock_hertz bigint,
    memory_clock_hertz bigint,
    throttle_reasons text[],
    pcie_receive_bytes_per_second bigint,
    pcie_transmit_bytes_per_second bigint,
    nvlink_receive_bytes bigint,
    nvlink_transmit_bytes bigint,
    ecc_corrected bigint,
    ecc_uncorrected bigint,
    remapped_rows_corrected bigint,
    remapped_rows_uncorrected bigint,
    remapped_rows_pending boolean,
    sm_active_percent double precision,
    sm_occupancy_percent double precision,
    tensor_active_percent double precision,
    fp64_active_percent double precision,
    fp32_active_percent double precision,
    fp16_active_percent double precision,
    dram_active_percent double precision,
    events jsonb,
    processes jsonb,
    absent jsonb
) PARTITION BY RANGE (sampled_at);
CREATE INDEX gpu_samples_sampled_at_idx ON gpu_samples USING brin (sampled_at);
CREATE INDEX gpu_samples_gpu_idx ON gpu_samples (gpu_id, sampled_at);
CREATE INDEX gpu_samples_job_idx ON gpu_samples (job_id, cluster_name, sampled_at) WHERE job_id IS NOT NULL;
COMMENT ON TABLE gpu_samples IS 'Readings of GPUs, held by a run or not: levels at sampled_at, and counters since the driver was loaded. One partition a day (UTC).';
COMMENT ON COLUMN gpu_samples.job_id IS 'The run that held the GPU; NULL where none or several did.';
COMMENT ON COLUMN gpu_samples.opened_by IS 'The event that began the run on this node; the same in job_nodes.opened_by.';
COMMENT ON COLUMN gpu_samples.energy_joules IS 'Counter since the driver was loaded, of the whole board.';
COMMENT ON COLUMN gpu_samples.throttle_reasons IS 'Why clocks are held down, in small letters; {} is runs freely, NULL is unknown.';
COMMENT ON COLUMN gpu_samples.nvlink_receive_bytes IS 'Counter since the driver was loaded, as are nvlink_transmit_bytes and the ECC counts.';
COMMENT ON COLUMN gpu_samples.sm_active_percent IS 'This and the six that follow are of the time since the look before, by hardware counters.';
COMMENT ON COLUMN gpu_samples.events IS 'Errors the driver told since the look before: time_us and code, for NVIDIA an XID; NULL is none.';
COMMENT ON COLUMN gpu_samples.processes IS 'Processes with a context on the GPU: pid and, where known, memory_used_bytes; [] is none, NULL is unknown.';
COMMENT ON COLUMN gpu_samples.absent IS 'Names of values that could not be read, with the reason.';

ALTER TABLE jobs
    ADD COLUMN gpu_busy_seconds double precision,
    ADD COLUMN gpu_unused_seconds double precision,
    ADD COLUMN energy_gpu_joules double precision,
    ADD COLUMN energy_cpu_joules double precision,
    ADD COLUMN energy_dram_joules double precision,
    ADD COLUMN energy_covered_seconds double precision,
    ADD COLUMN energy_coverage_ratio double precision,
    ADD COLUMN energy_method text,
    ADD COLUMN emission_factor_grams_per_kwh double precision,
    ADD COLUMN emission_factor_year integer,
    ADD COLUMN emission_factor_source text,
    ADD COLUMN pue double precision;
COMMENT ON COLUMN jobs.gpu_seconds IS 'Time for which the run''s GPUs were looked at, summed over them.';
COMMENT ON COLUMN jobs.gpu_busy_seconds IS 'Of gpu_seconds: utilisation times time.';
COMMENT ON COLUMN jobs.gpu_unused_seconds IS 'Of gpu_seconds: time in which no process of the run was on the GPU, although the run held it.';
COMMENT ON COLUMN jobs.gpu_utilization_mean_percent IS 'Mean utilisation of the run''s GPUs over gpu_seconds.';
COMMENT ON COLUMN jobs.gpu_memory_peak_bytes IS 'Most memory in use on one GPU.';
COMMENT ON COLUMN jobs.energy_joules IS 'Energy of the components that have a number, together: not that of whole nodes, and nothing is estimated for the others.';
COMMENT ON COLUMN jobs.energy_gpu_joules IS 'Energy of the run''s GPUs, idle power included.';
COMMENT ON COLUMN jobs.energy_cpu_joules IS 'The run''s share of the CPU packages'' energy, by CPU time.';
COMMENT ON COLUMN jobs.energy_dram_joules IS 'The run''s share of the memory''s energy, by CPU time.';
COMMENT ON COLUMN jobs.energy_covered_seconds IS 'Time, summed over nodes, in which every component that has a number was measured; the rest is a gap, not 0 J.';
COMMENT ON COLUMN jobs.energy_coverage_ratio IS 'energy_covered_seconds of the run''s time over its nodes; NULL while it runs or unknown.';
COMMENT ON COLUMN jobs.energy_method IS 'counter, integrated (from power), apportioned (shared hardware), or mixed.';
COMMENT ON COLUMN jobs.emissions_grams IS 'CO2 equivalents of energy_joules x PUE x factor; NULL unless all that energy has a factor.';
COMMENT ON COLUMN jobs.emission_factor_grams_per_kwh IS 'The factor used; NULL where several were, or none.';
COMMENT ON COLUMN jobs.emission_factor_year IS 'The year the factor is of.';
COMMENT ON COLUMN jobs.emission_factor_source IS 'Where the factor is from; where several were used, each with its value.';
COMMENT ON COLUMN jobs.pue IS 'The building''s energy by its computers'', applied once; 1 is not applied. NULL where several were used, or none.';

-- The same as in jobs, of one node.
ALTER TABLE job_nodes
    ADD COLUMN gpu_seconds double precision,
    ADD COLUMN gpu_busy_seconds double precision,
    ADD COLUMN gpu_unused_seconds double precision,
    ADD COLUMN gpu_utilization_mean_percent double precision,
    ADD COLUMN gpu_memory_peak_bytes bigint,
    ADD COLUMN energy_joules double precision,
    ADD COLUMN energy_gpu_joules double precision,
    ADD COLUMN energy_cpu_joules double precision,
    ADD COLUMN energy_dram_joules double precision,
    ADD COLUMN energy_covered_seconds double precision,
    ADD COLUMN energy_coverage_ratio double precision,
    ADD COLUMN energy_method text,
    ADD COLUMN emissions_grams double precision,
    ADD COLUMN emission_factor_grams_per_kwh double precision,
    ADD COLUMN emission_factor_year integer,
    ADD COLUMN emission_factor_source text,
    ADD COLUMN pue double precision;

CREATE OR REPLACE VIEW job_efficiency AS
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

CREATE VIEW job_energy AS
SELECT j.cluster_name, j.job_id, j.run, j.user_name, j.account, j.partition, j.state, j.verdict, j.start_time, j.end_time,
       j.energy_joules, j.energy_gpu_joules, j.energy_cpu_joules, j.energy_dram_joules,
       j.energy_covered_seconds, j.energy_coverage_ratio, j.energy_method,
       j.emissions_grams, j.emission_factor_grams_per_kwh, j.emission_factor_year, j.emission_factor_source, j.pue,
       j.nodes_reporting, j.nodes_total
FROM jobs j;
COMMENT ON VIEW job_energy IS 'Energy of each run by component, what it rests on, and the CO2 equivalents it caused: joules / 3.6e6 x PUE x factor. NULL where any input is missing.';

CREATE OR REPLACE FUNCTION jobtrail_keep_partitions(days_ahead integer, retention_days integer, OUT created integer, OUT dropped integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET datestyle = 'ISO' SET lock_timeout = '5s' AS $body$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    parent text;
    samples constant text[] := ARRAY['job_samples', 'gpu_samples'];
    month date := date_trunc('month', today)::date;
    child text;
BEGIN
    IF days_ahead IS NULL OR days_ahead NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'days_ahead must be between 0 and 366, not %', days_ahead USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF retention_days < 1 THEN
        RAISE EXCEPTION 'retention_days must be at least 1, or NULL to drop nothing, not %', retention_days
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(19028, -1);  -- one at a time: many daemons ask at once
    created := 0;
    dropped := 0;
    -- From yesterday on, because readings may arrive a little late.
    FOREACH parent IN ARRAY samples LOOP
        FOR day IN SELECT today + n FROM generate_series(-1, days_ahead) AS n LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(format('public.%I', child)) IS NOT NULL;
            EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)',
                           child, parent, day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00');
            created := created + 1;
        END LOOP;
    END LOOP;
    WHILE month <= today + greatest(days_ahead, 31) LOOP
        child := 'audit_payload_' || to_char(month, 'YYYYMM');
        IF to_regclass(format('public.%I', child)) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE public.%I PARTITION OF public.audit_payload FOR VALUES FROM (%L) TO (%L)',
                               child, month || ' 00:00:00+00', (month + interval '1 month')::date || ' 00:00:00+00');
                PERFORM public.jobtrail_guard_payload_partition(child);
                created := created + 1;
            EXCEPTION WHEN check_violation THEN
                -- Rows of this month came before the partition did; they lie in the default one and stay there.
                RAISE NOTICE 'partition % not created: audit_payload_default holds rows of that month', child;
            END;
        END IF;
        month := (month + interval '1 month')::date;
    END LOOP;
    FOR child IN
        SELECT c.relname FROM unnest(samples) AS held (name)
        JOIN pg_inherits i ON i.inhparent = format('public.%I', held.name)::regclass
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE c.relname ~ ('^' || held.name || '_[0-9]{8}$')
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < today - retention_days
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE public.%I', child);
        dropped := dropped + 1;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION jobtrail_keep_partitions IS 'Makes the partitions of the coming days and drops days of job_samples and gpu_samples older than retention_days (NULL: none). Trail partitions are never dropped.';

CREATE OR REPLACE FUNCTION jobtrail_apply_grants() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    object record;
BEGIN
    REVOKE ALL ON FUNCTION public.jobtrail_apply_grants(), public.jobtrail_keep_partitions(integer, integer),
        public.jobtrail_guard_payload_partition(text) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_ingest') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_ingest;
        GRANT SELECT, INSERT, UPDATE ON public.jobs, public.job_nodes, public.job_gpus, public.audit_chain
            TO jobtrail_ingest;
        -- A node that Slurm no longer has goes away; nothing else here is ever deleted by a daemon.
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.nodes TO jobtrail_ingest;
        GRANT SELECT, INSERT ON public.audit_log, public.audit_payload, public.audit_conflict, public.job_samples,
            public.gpu_samples TO jobtrail_ingest;
        GRANT SELECT ON public.job_audit_events, public.job_efficiency, public.job_energy, public.alembic_version
            TO jobtrail_ingest;
        GRANT EXECUTE ON FUNCTION public.jobtrail_keep_partitions(integer, integer) TO jobtrail_ingest;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_reader') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_reader;
        GRANT SELECT ON public.jobs, public.job_nodes, public.job_gpus, public.nodes, public.job_samples,
            public.gpu_samples, public.audit_chain, public.audit_log, public.job_audit_events,
            public.job_efficiency, public.job_energy, public.alembic_version TO jobtrail_reader;
        -- Not the salt: with it, an erased payload could be guessed from its commitment.
        GRANT SELECT (chain_id, seq, received_at, payload, job_snapshot) ON public.audit_payload TO jobtrail_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_auditor') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_auditor;
        GRANT SELECT ON public.audit_chain, public.audit_log, public.audit_payload, public.audit_conflict,
            public.job_audit_events, public.alembic_version TO jobtrail_auditor;
    END IF;
    -- Owned by a role nobody logs in as, so that no login can disable the triggers. Only a superuser can hand objects
    -- to a role it is no member of; elsewhere they stay with the migrating user.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_owner')
       AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        GRANT USAGE, CREATE ON SCHEMA public TO jobtrail_owner;
        FOR object IN
            SELECT c.oid::regclass AS name, c.relkind FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
              AND c.relname ~ '^(jobs|job_|gpu_samples|audit_|nodes$)'
        LOOP
            IF object.relkind = 'v' THEN
                EXECUTE format('ALTER VIEW %s OWNER TO jobtrail_owner', object.name);
            ELSE
                EXECUTE format('ALTER TABLE %s OWNER TO jobtrail_owner', object.name);
            END IF;
        END LOOP;
        FOR object IN
            SELECT p.oid::regprocedure AS name FROM pg_proc p
            WHERE p.pronamespace = 'public'::regnamespace AND p.proname ~ '^jobtrail_'
        LOOP
            EXECUTE format('ALTER FUNCTION %s OWNER TO jobtrail_owner', object.name);
        END LOOP;
    END IF;
END
$body$;
SELECT jobtrail_apply_grants();
SELECT jobtrail_keep_partitions(3, NULL);
