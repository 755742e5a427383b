-- What each run had used so far, look by look: energy over any part of a run.

CREATE TABLE energy_samples (
    sampled_at timestamptz NOT NULL,
    cluster_name text NOT NULL,
    job_id text NOT NULL,
    node text NOT NULL,
    opened_by uuid,
    gpu_joules double precision,
    cpu_joules double precision,
    dram_joules double precision,
    covered_seconds double precision,
    gpu_method text,
    gpu_ids text[],
    shared_gpu_ids text[],
    board_ids text[],
    emission_factor_grams_per_kwh double precision,
    emission_factor_year integer,
    emission_factor_source text,
    pue double precision
) PARTITION BY RANGE (sampled_at);
CREATE INDEX energy_samples_sampled_at_idx ON energy_samples USING brin (sampled_at);
CREATE INDEX energy_samples_job_idx ON energy_samples (job_id, cluster_name, sampled_at);
CREATE INDEX energy_samples_opened_by_idx ON energy_samples (opened_by, sampled_at);
COMMENT ON TABLE energy_samples IS 'Energy that a run had used on a node up to sampled_at: between two rows of a node it used what they differ by. One partition a day (UTC).';
COMMENT ON COLUMN energy_samples.opened_by IS 'The event that began the run on this node; the same in job_nodes.opened_by.';
COMMENT ON COLUMN energy_samples.gpu_joules IS 'Of all the run''s GPUs on the node; this and the two that follow only grow, and are NULL where nothing is known or this look did not read them.';
COMMENT ON COLUMN energy_samples.cpu_joules IS 'The run''s share of the CPU packages'' energy, by CPU time.';
COMMENT ON COLUMN energy_samples.dram_joules IS 'The run''s share of the memory''s energy, by CPU time.';
COMMENT ON COLUMN energy_samples.covered_seconds IS 'Time of the run up to sampled_at in which every component that has a number was measured.';
COMMENT ON COLUMN energy_samples.gpu_method IS 'counter, integrated (from power), apportioned (shared hardware), or mixed; NULL where gpu_joules is.';
COMMENT ON COLUMN energy_samples.gpu_ids IS 'The run''s GPUs on the node; {} is none, NULL is unknown.';
COMMENT ON COLUMN energy_samples.shared_gpu_ids IS 'Of gpu_ids those that other runs held or used at that moment; NULL is unknown.';
COMMENT ON COLUMN energy_samples.board_ids IS 'Boards of the instances (MIG) among gpu_ids: power and clocks are theirs.';
COMMENT ON COLUMN energy_samples.emission_factor_grams_per_kwh IS 'This and the three that follow are the node''s settings at that moment; NULL where it has no factor.';

CREATE OR REPLACE FUNCTION jobtrail_keep_partitions(days_ahead integer, retention_days integer, OUT created integer, OUT dropped integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET datestyle = 'ISO' SET lock_timeout = '5s' AS $body$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    parent text;
    samples constant text[] := ARRAY['job_samples', 'gpu_samples', 'energy_samples'];
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
COMMENT ON FUNCTION jobtrail_keep_partitions IS 'Makes the partitions of the coming days and drops days of job_samples, gpu_samples and energy_samples older than retention_days (NULL: none). Trail partitions are never dropped.';

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
            public.gpu_samples, public.energy_samples TO jobtrail_ingest;
        GRANT SELECT ON public.job_audit_events, public.job_efficiency, public.job_energy, public.alembic_version
            TO jobtrail_ingest;
        GRANT EXECUTE ON FUNCTION public.jobtrail_keep_partitions(integer, integer) TO jobtrail_ingest;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_reader') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_reader;
        GRANT SELECT ON public.jobs, public.job_nodes, public.job_gpus, public.nodes, public.job_samples,
            public.gpu_samples, public.energy_samples, public.audit_chain, public.audit_log,
            public.job_audit_events, public.job_efficiency, public.job_energy, public.alembic_version TO jobtrail_reader;
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
              AND c.relname ~ '^(jobs|job_|gpu_samples|energy_samples|audit_|nodes$)'
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
