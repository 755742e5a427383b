-- Jobs, their audit trail, their samples, the roles that may touch them.
--
-- Roles are shared by all databases of a server. Where the migrating user may not create them, the tables come into
-- being all the same; create the four roles as an administrator and call `SELECT jobtrail_apply_grants()` afterwards.

DO $roles$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['jobtrail_owner', 'jobtrail_ingest', 'jobtrail_reader', 'jobtrail_auditor'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = wanted);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;  -- the migration of another database on this server was faster
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % does not exist and % may not create it: its grants are left out', wanted, current_user
                    USING HINT = 'Create the role, then run: SELECT jobtrail_apply_grants();';
        END;
    END LOOP;
END
$roles$;

CREATE TABLE jobs (
    cluster_name text NOT NULL,
    job_id text NOT NULL,
    run integer NOT NULL,
    user_name text,
    uid bigint,
    gid bigint,
    account text,
    partition text,
    qos text,
    job_name text,
    comment text,
    reservation text,
    work_dir text,
    command text[],
    nodes text[],
    node_list text,
    state text NOT NULL,
    raw_state text,
    reason text,
    state_confirmed boolean NOT NULL DEFAULT false,
    exit_code integer,
    exit_signal integer,
    verdict text,
    verdict_evidence jsonb,
    submit_time timestamptz,
    start_time timestamptz,
    end_time timestamptz,
    start_inferred boolean NOT NULL DEFAULT false,
    end_inferred boolean NOT NULL DEFAULT false,
    slurm_start_time timestamptz,
    sluid text,
    restart_count integer,
    array_job_id text,
    array_task_id bigint,
    het_leader_job_id text,
    nodes_started integer NOT NULL DEFAULT 0,
    nodes_ended integer NOT NULL DEFAULT 0,
    nodes_reporting integer NOT NULL DEFAULT 0,
    cpus_allocated integer,
    gpus_allocated integer,
    gpu_vendor text,
    memory_limit_bytes bigint,
    time_limit_seconds bigint,
    cpu_seconds double precision,
    cpu_user_seconds double precision,
    cpu_system_seconds double precision,
    throttled_seconds double precision,
    memory_peak_bytes bigint,
    oom_kills bigint,
    io_read_bytes bigint,
    io_write_bytes bigint,
    processes_peak bigint,
    gpu_seconds double precision,
    gpu_utilization_mean_percent double precision,
    gpu_memory_peak_bytes bigint,
    energy_joules double precision,
    emissions_grams double precision,
    usage_sources jsonb,
    usage_absent jsonb,
    coverage_ratio double precision,
    sample_count bigint NOT NULL DEFAULT 0,
    first_sample_at timestamptz,
    last_sample_at timestamptz,
    correlation_id uuid NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    projection jsonb NOT NULL,
    PRIMARY KEY (cluster_name, job_id, run),
    CONSTRAINT jobs_run_check CHECK (run >= 1),
    CONSTRAINT jobs_state_check
        CHECK (state IN ('pending', 'running', 'ended', 'completed', 'failed', 'cancelled')),
    CONSTRAINT jobs_verdict_check
        CHECK (verdict IN ('completed', 'failed', 'cancelled', 'timeout', 'out_of_memory', 'node_fail', 'preempted',
                           'killed_by_signal', 'requeued', 'unknown'))
);
CREATE INDEX jobs_job_id_idx ON jobs (job_id);
CREATE INDEX jobs_state_idx ON jobs (state, start_time DESC);
CREATE INDEX jobs_user_name_idx ON jobs (user_name, start_time DESC);
CREATE INDEX jobs_start_time_idx ON jobs (start_time DESC NULLS LAST);
CREATE INDEX jobs_nodes_idx ON jobs USING gin (nodes);
COMMENT ON TABLE jobs IS 'One row for each run of a job, derived from audit_log; `jobtrail audit rebuild` derives it anew.';
COMMENT ON COLUMN jobs.coverage_ratio IS 'Share of the run''s time, over its nodes, that lies before the last sample; NULL while it runs or unknown.';
COMMENT ON COLUMN jobs.usage_absent IS 'Names of values that could not be measured, with the reason.';
COMMENT ON COLUMN jobs.projection IS 'What the columns are derived from, exactly as the projector wrote it.';

CREATE TABLE job_nodes (
    cluster_name text NOT NULL,
    job_id text NOT NULL,
    run integer NOT NULL,
    node text NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    start_inferred boolean NOT NULL DEFAULT false,
    opened_by uuid,
    cpus integer,
    cpu_seconds double precision,
    cpu_user_seconds double precision,
    cpu_system_seconds double precision,
    throttled_seconds double precision,
    memory_peak_bytes bigint,
    oom_kills bigint,
    io_read_bytes bigint,
    io_write_bytes bigint,
    processes_peak bigint,
    usage_sources jsonb,
    usage_absent jsonb,
    coverage_ratio double precision,
    sample_count bigint NOT NULL DEFAULT 0,
    first_sample_at timestamptz,
    last_sample_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    projection jsonb NOT NULL,
    PRIMARY KEY (cluster_name, job_id, run, node)
);
CREATE INDEX job_nodes_node_idx ON job_nodes (node, started_at DESC);
COMMENT ON TABLE job_nodes IS 'One row for each node of a run.';
COMMENT ON COLUMN job_nodes.opened_by IS 'The event that began the run on this node; the same in job_samples.opened_by.';

CREATE TABLE audit_chain (
    chain_id uuid PRIMARY KEY,
    node text NOT NULL,
    head_seq bigint NOT NULL,
    head_hash bytea NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE audit_chain IS 'One row for each writer of the trail: how far its chain is held here.';

CREATE TABLE audit_log (
    chain_id uuid NOT NULL,
    seq bigint NOT NULL,
    event_id uuid NOT NULL,
    kind text NOT NULL,
    prev_hash bytea NOT NULL,
    commitment bytea NOT NULL,
    row_hash bytea NOT NULL,
    changed_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    changed_by text,
    source text,
    change_type text,
    cluster_name text,
    job_id text,
    run integer,
    node text,
    correlation_id uuid,
    unapplied text,
    PRIMARY KEY (chain_id, seq),
    UNIQUE (chain_id, event_id),
    UNIQUE (chain_id, prev_hash),
    CONSTRAINT audit_log_change_type_check CHECK (change_type IN ('create', 'update', 'delete')),
    CONSTRAINT audit_log_hash_check
        CHECK (octet_length(prev_hash) = 32 AND octet_length(commitment) = 32 AND octet_length(row_hash) = 32)
);
CREATE INDEX audit_log_job_idx ON audit_log (job_id, cluster_name, run, changed_at);
CREATE INDEX audit_log_changed_at_idx ON audit_log (changed_at);
CREATE INDEX audit_log_correlation_idx ON audit_log (correlation_id);
COMMENT ON TABLE audit_log IS 'Every event, hash-chained by its writer. Insert only.';
COMMENT ON COLUMN audit_log.changed_at IS 'When it happened, as the sender says; part of row_hash in microseconds since 1970.';
COMMENT ON COLUMN audit_log.received_at IS 'When the writer of the chain took it in.';
COMMENT ON COLUMN audit_log.stored_at IS 'When this database took it in.';
COMMENT ON COLUMN audit_log.change_type IS 'What it did to the run; NULL for events that change no job.';
COMMENT ON COLUMN audit_log.unapplied IS 'Why the event changed no job although it should have; NULL where all is well.';

CREATE TABLE audit_payload (
    chain_id uuid NOT NULL,
    seq bigint NOT NULL,
    received_at timestamptz NOT NULL,
    payload bytea NOT NULL,
    salt bytea NOT NULL,
    job_snapshot jsonb,
    PRIMARY KEY (chain_id, seq, received_at)
) PARTITION BY RANGE (received_at);
CREATE TABLE audit_payload_default PARTITION OF audit_payload DEFAULT;
COMMENT ON TABLE audit_payload IS 'The bytes that audit_log''s commitments cover, apart so that the law''s order can erase them. Insert only.';
COMMENT ON COLUMN audit_payload.job_snapshot IS 'The complete row of jobs after the event.';

CREATE TABLE audit_conflict (
    chain_id uuid NOT NULL,
    seq bigint NOT NULL,
    held_hash bytea,
    offered_hash bytea NOT NULL,
    payload bytea NOT NULL,
    reason text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, seq, offered_hash)
);
COMMENT ON TABLE audit_conflict IS 'Events offered under a key that is held with another hash: tampering, or two writers on one chain.';

CREATE TABLE job_samples (
    sampled_at timestamptz NOT NULL,
    cluster_name text NOT NULL,
    job_id text NOT NULL,
    node text NOT NULL,
    opened_by uuid,
    source text NOT NULL,
    cpu_percent double precision,
    cpu_seconds double precision,
    cpu_user_seconds double precision,
    cpu_system_seconds double precision,
    cpu_throttled_periods bigint,
    cpu_throttled_seconds double precision,
    memory_current_bytes bigint,
    memory_peak_bytes bigint,
    memory_limit_bytes bigint,
    memory_rss_bytes bigint,
    memory_cache_bytes bigint,
    memory_shmem_bytes bigint,
    oom_kills bigint,
    io_read_bytes bigint,
    io_write_bytes bigint,
    processes bigint,
    threads bigint,
    pressure_cpu_some_seconds double precision,
    pressure_cpu_full_seconds double precision,
    pressure_memory_some_seconds double precision,
    pressure_memory_full_seconds double precision,
    pressure_io_some_seconds double precision,
    pressure_io_full_seconds double precision,
    absent jsonb
) PARTITION BY RANGE (sampled_at);
CREATE INDEX job_samples_sampled_at_idx ON job_samples USING brin (sampled_at);
CREATE INDEX job_samples_job_idx ON job_samples (job_id, cluster_name, sampled_at);
COMMENT ON TABLE job_samples IS 'Readings of running jobs: counters since the run''s start, levels at sampled_at. One partition a day (UTC).';
COMMENT ON COLUMN job_samples.absent IS 'Names of values that could not be read, with the reason.';

CREATE FUNCTION jobtrail_refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION '% on % refused: the audit trail is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$body$;

-- ALWAYS: they fire under session_replication_role = replica too, which would silence ordinary triggers.
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION jobtrail_refuse_change();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION jobtrail_refuse_change();
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_no_truncate;
CREATE TRIGGER audit_conflict_append_only BEFORE UPDATE OR DELETE ON audit_conflict
    FOR EACH ROW EXECUTE FUNCTION jobtrail_refuse_change();
CREATE TRIGGER audit_conflict_no_truncate BEFORE TRUNCATE ON audit_conflict
    FOR EACH STATEMENT EXECUTE FUNCTION jobtrail_refuse_change();
ALTER TABLE audit_conflict ENABLE ALWAYS TRIGGER audit_conflict_append_only;
ALTER TABLE audit_conflict ENABLE ALWAYS TRIGGER audit_conflict_no_truncate;
CREATE TRIGGER audit_payload_append_only BEFORE UPDATE OR DELETE ON audit_payload
    FOR EACH ROW EXECUTE FUNCTION jobtrail_refuse_change();
CREATE TRIGGER audit_payload_no_truncate BEFORE TRUNCATE ON audit_payload
    FOR EACH STATEMENT EXECUTE FUNCTION jobtrail_refuse_change();
ALTER TABLE audit_payload ENABLE ALWAYS TRIGGER audit_payload_append_only;
ALTER TABLE audit_payload ENABLE ALWAYS TRIGGER audit_payload_no_truncate;

-- A TRUNCATE of one partition does not fire the parent's trigger, so each partition carries its own.
CREATE FUNCTION jobtrail_guard_payload_partition(partition_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    EXECUTE format('CREATE TRIGGER audit_payload_no_truncate BEFORE TRUNCATE ON public.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION public.jobtrail_refuse_change()', partition_name);
    EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER audit_payload_no_truncate', partition_name);
    EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER audit_payload_append_only', partition_name);
END
$body$;
SELECT jobtrail_guard_payload_partition('audit_payload_default');

CREATE FUNCTION jobtrail_keep_partitions(days_ahead integer, retention_days integer, OUT created integer, OUT dropped integer)
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

CREATE FUNCTION jobtrail_event_json(payload bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    -- jsonb cannot hold U+0000; it is shown as the replacement character U+FFFD. The stored bytes stay as they are.
    RETURN regexp_replace(convert_from(payload, 'UTF8'), '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::jsonb;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$body$;
COMMENT ON FUNCTION jobtrail_event_json IS 'An event''s stored bytes as jsonb; NULL where they are no JSON.';

CREATE VIEW job_audit_events AS
SELECT l.cluster_name, l.job_id, l.run, l.node, l.kind AS event_kind, l.change_type, l.changed_at, l.received_at,
       l.stored_at, l.changed_by, l.source, l.correlation_id, l.event_id, l.chain_id, l.seq, l.unapplied,
       jobtrail_event_json(p.payload) AS event, p.job_snapshot
FROM audit_log l
LEFT JOIN audit_payload p ON p.chain_id = l.chain_id AND p.seq = l.seq AND p.received_at = l.received_at
WHERE l.job_id IS NOT NULL;
COMMENT ON VIEW job_audit_events IS 'What happened to each job, by whom, and the job after it.';

CREATE VIEW job_efficiency AS
SELECT j.cluster_name, j.job_id, j.run, j.user_name, j.account, j.partition, j.state, j.verdict,
       j.start_time, j.end_time, m.elapsed_seconds, j.cpus_allocated, j.cpu_seconds,
       j.cpu_seconds / nullif(j.cpus_allocated * m.elapsed_seconds, 0) AS cpu_efficiency,
       j.memory_peak_bytes, j.memory_limit_bytes,
       j.memory_peak_bytes::double precision / nullif(j.memory_limit_bytes, 0) AS memory_efficiency,
       j.coverage_ratio, j.sample_count
FROM jobs j
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM coalesce(j.end_time, j.last_sample_at) - j.start_time)::double precision AS elapsed_seconds
) m;
COMMENT ON VIEW job_efficiency IS 'CPU time used of CPU time allocated, peak memory of the memory limit; of a running job up to its last sample. NULL where a part is unknown.';

CREATE FUNCTION jobtrail_apply_grants() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    object record;
BEGIN
    REVOKE ALL ON FUNCTION public.jobtrail_apply_grants(), public.jobtrail_keep_partitions(integer, integer),
        public.jobtrail_guard_payload_partition(text) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_ingest') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_ingest;
        GRANT SELECT, INSERT, UPDATE ON public.jobs, public.job_nodes, public.audit_chain TO jobtrail_ingest;
        GRANT SELECT, INSERT ON public.audit_log, public.audit_payload, public.audit_conflict, public.job_samples
            TO jobtrail_ingest;
        GRANT SELECT ON public.job_audit_events, public.job_efficiency, public.alembic_version TO jobtrail_ingest;
        GRANT EXECUTE ON FUNCTION public.jobtrail_keep_partitions(integer, integer) TO jobtrail_ingest;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_reader') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_reader;
        GRANT SELECT ON public.jobs, public.job_nodes, public.job_samples, public.audit_chain, public.audit_log,
            public.job_audit_events, public.job_efficiency, public.alembic_version TO jobtrail_reader;
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
              AND c.relname ~ '^(jobs|job_|audit_)'
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
COMMENT ON FUNCTION jobtrail_apply_grants IS 'Gives jobtrail_ingest, _reader and _auditor their rights, and the objects to jobtrail_owner. Safe to repeat.';

SELECT jobtrail_apply_grants();
SELECT jobtrail_keep_partitions(3, NULL);
