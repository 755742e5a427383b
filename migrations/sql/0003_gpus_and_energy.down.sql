-- Undoes this revision: readings of GPUs and the columns' values are lost; the trail keeps the events of the latter.

DROP VIEW job_energy, job_efficiency;
DROP TABLE gpu_samples, job_gpus;
ALTER TABLE job_nodes
    DROP COLUMN gpu_seconds,
    DROP COLUMN gpu_busy_seconds,
    DROP COLUMN gpu_unused_seconds,
    DROP COLUMN gpu_utilization_mean_percent,
    DROP COLUMN gpu_memory_peak_bytes,
    DROP COLUMN energy_joules,
    DROP COLUMN energy_gpu_joules,
    DROP COLUMN energy_cpu_joules,
    DROP COLUMN energy_dram_joules,
    DROP COLUMN energy_covered_seconds,
    DROP COLUMN energy_coverage_ratio,
    DROP COLUMN energy_method,
    DROP COLUMN emissions_grams,
    DROP COLUMN emission_factor_grams_per_kwh,
    DROP COLUMN emission_factor_year,
    DROP COLUMN emission_factor_source,
    DROP COLUMN pue;
ALTER TABLE jobs
    DROP COLUMN gpu_busy_seconds,
    DROP COLUMN gpu_unused_seconds,
    DROP COLUMN energy_gpu_joules,
    DROP COLUMN energy_cpu_joules,
    DROP COLUMN energy_dram_joules,
    DROP COLUMN energy_covered_seconds,
    DROP COLUMN energy_coverage_ratio,
    DROP COLUMN energy_method,
    DROP COLUMN emission_factor_grams_per_kwh,
    DROP COLUMN emission_factor_year,
    DROP COLUMN emission_factor_source,
    DROP COLUMN pue;
UPDATE jobs SET
    gpu_seconds = NULL,
    gpu_utilization_mean_percent = NULL,
    gpu_memory_peak_bytes = NULL,
    energy_joules = NULL,
    emissions_grams = NULL
WHERE gpu_seconds IS NOT NULL OR gpu_utilization_mean_percent IS NOT NULL
   OR gpu_memory_peak_bytes IS NOT NULL OR energy_joules IS NOT NULL OR emissions_grams IS NOT NULL;
COMMENT ON COLUMN jobs.gpu_seconds IS NULL;
COMMENT ON COLUMN jobs.gpu_utilization_mean_percent IS NULL;
COMMENT ON COLUMN jobs.gpu_memory_peak_bytes IS NULL;
COMMENT ON COLUMN jobs.energy_joules IS NULL;
COMMENT ON COLUMN jobs.emissions_grams IS NULL;

CREATE VIEW job_efficiency AS
SELECT j.cluster_name, j.job_id, j.run, j.user_name, j.account, j.partition, j.state, j.verdict,
       j.start_time, j.end_time, m.elapsed_seconds, j.cpus_allocated, j.cpu_seconds,
       j.cpu_seconds / nullif(j.cpus_allocated * m.elapsed_seconds, 0) AS cpu_efficiency,
       j.memory_peak_bytes, j.memory_limit_bytes,
       j.memory_peak_bytes::double precision / nullif(j.memory_limit_bytes, 0) AS memory_efficiency,
       j.coverage_ratio, j.sample_count, j.nodes_reporting, j.nodes_total
FROM jobs j
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM coalesce(j.end_time, j.last_sample_at) - j.start_time)::double precision AS elapsed_seconds
) m;
COMMENT ON VIEW job_efficiency IS 'CPU time used of CPU time allocated, peak memory of the memory limit; of a running job up to its last sample. NULL where a part is unknown. Usage covers nodes_reporting of nodes_total nodes.';

CREATE OR REPLACE FUNCTION jobtrail_keep_partitions(days_ahead integer, retention_days integer, OUT created integer, OUT dropped integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET datestyle = 'ISO' SET lock_timeout = '5s' AS $body$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date;
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
    FOR day IN SELECT today + n FROM generate_series(-1, days_ahead) AS n LOOP
        child := 'job_samples_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(format('public.%I', child)) IS NOT NULL;
        EXECUTE format('CREATE TABLE public.%I PARTITION OF public.job_samples FOR VALUES FROM (%L) TO (%L)',
                       child, day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00');
        created := created + 1;
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
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.job_samples'::regclass AND c.relname ~ '^job_samples_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < today - retention_days
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE public.%I', child);
        dropped := dropped + 1;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION jobtrail_keep_partitions IS 'Makes the partitions of the coming days and drops sample days older than retention_days (NULL: none). Trail partitions are never dropped.';

CREATE OR REPLACE FUNCTION jobtrail_apply_grants() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    object record;
BEGIN
    REVOKE ALL ON FUNCTION public.jobtrail_apply_grants(), public.jobtrail_keep_partitions(integer, integer),
        public.jobtrail_guard_payload_partition(text) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_ingest') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_ingest;
        GRANT SELECT, INSERT, UPDATE ON public.jobs, public.job_nodes, public.audit_chain TO jobtrail_ingest;
        -- A node that Slurm no longer has goes away; nothing else here is ever deleted by a daemon.
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.nodes TO jobtrail_ingest;
        GRANT SELECT, INSERT ON public.audit_log, public.audit_payload, public.audit_conflict, public.job_samples
            TO jobtrail_ingest;
        GRANT SELECT ON public.job_audit_events, public.job_efficiency, public.alembic_version TO jobtrail_ingest;
        GRANT EXECUTE ON FUNCTION public.jobtrail_keep_partitions(integer, integer) TO jobtrail_ingest;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_reader') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_reader;
        GRANT SELECT ON public.jobs, public.job_nodes, public.nodes, public.job_samples, public.audit_chain,
            public.audit_log, public.job_audit_events, public.job_efficiency, public.alembic_version
            TO jobtrail_reader;
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
              AND c.relname ~ '^(jobs|job_|audit_|nodes$)'
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
