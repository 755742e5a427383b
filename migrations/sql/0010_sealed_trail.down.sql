-- The trail's rows stay; the checkpoints, the store's hashes and the record of what was removed go.
DROP FUNCTION jobtrail_ingest(uuid, text, bigint[], uuid[], text[], bigint[], bigint[], bytea[], bytea[], bytea[], bytea[],
    bytea[], text[], text[], text[], text[], text[], integer[], text[], uuid[], text[], uuid[], jsonb[], text[], text[]);
DROP FUNCTION jobtrail_seal(bigint, bytea, bytea, bigint, bigint, bytea, text, uuid[], bigint[], bytea[], bytea[], bytea[]);
DROP FUNCTION jobtrail_prune(timestamptz, text, text, bigint, bytea, boolean), jobtrail_erase(text, text, text),
    jobtrail_without_person(jsonb, text, text), jobtrail_hold(text, text, boolean), jobtrail_check_removal(text, text),
    jobtrail_note(text, jsonb), jobtrail_time_us(timestamptz), jobtrail_time_of(bigint), jobtrail_field(text),
    jobtrail_row_hash(uuid, bigint, bytea, bigint, text, uuid, bytea);
DROP TABLE audit_removing, audit_removed_run, audit_hold, audit_verification, audit_seal, audit_checkpoint_leaf,
    audit_checkpoint;

CREATE OR REPLACE FUNCTION jobtrail_refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION '% on % refused: the audit trail is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$body$;
DROP TABLE audit_permit;
ALTER TABLE audit_log DROP COLUMN snapshot_commitment, DROP COLUMN store_hash;
ALTER TABLE audit_chain DROP COLUMN store_hash, DROP COLUMN pruned_seq;

DO $rights$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY ARRAY['jobtrail_ingest', 'jobtrail_reader', 'jobtrail_auditor'] LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one);
        EXECUTE format('REVOKE ALL ON public.audit_payload FROM %I', one);
    END LOOP;
    FOREACH one IN ARRAY ARRAY['jobtrail_sealer', 'jobtrail_retention', 'jobtrail_erase'] LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one);
        EXECUTE format('REVOKE ALL ON public.audit_chain, public.audit_log, public.audit_payload, public.alembic_version FROM %I', one);
        EXECUTE format('REVOKE ALL ON SCHEMA public FROM %I', one);
    END LOOP;
END
$rights$;
CREATE OR REPLACE FUNCTION jobtrail_apply_grants() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    object record;
BEGIN
    REVOKE ALL ON FUNCTION public.jobtrail_apply_grants(), public.jobtrail_keep_partitions(integer, integer),
        public.jobtrail_guard_payload_partition(text), public.jobtrail_withdraw_jobs(jsonb) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_ingest') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_ingest;
        GRANT SELECT, INSERT, UPDATE ON public.jobs, public.job_nodes, public.job_gpus, public.audit_chain
            TO jobtrail_ingest;
        -- A node that Slurm no longer has goes away; of jobs nothing is ever deleted by a daemon.
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.nodes TO jobtrail_ingest;
        -- A manual job that is withdrawn moves, and only through this function.
        GRANT SELECT ON public.jobs_withdrawn TO jobtrail_ingest;
        GRANT EXECUTE ON FUNCTION public.jobtrail_withdraw_jobs(jsonb) TO jobtrail_ingest;
        GRANT SELECT, INSERT ON public.audit_log, public.audit_payload, public.audit_conflict, public.job_samples,
            public.gpu_samples, public.energy_samples, public.benchmark_decision TO jobtrail_ingest;
        GRANT SELECT, INSERT, UPDATE ON public.benchmark_recipe, public.benchmark_run TO jobtrail_ingest;
        -- What follows from a report is replaced when more is known; the report itself is never deleted.
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.benchmark_run_job, public.benchmark_metric,
            public.benchmark_energy, public.benchmark_verdict TO jobtrail_ingest;
        GRANT SELECT ON public.benchmark_metric_def, public.benchmark_reference, public.benchmark_run_summary
            TO jobtrail_ingest;
        GRANT SELECT ON public.job_audit_events, public.job_efficiency, public.job_energy, public.alembic_version
            TO jobtrail_ingest;
        GRANT EXECUTE ON FUNCTION public.jobtrail_keep_partitions(integer, integer) TO jobtrail_ingest;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_reader') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_reader;
        GRANT SELECT ON public.jobs, public.jobs_withdrawn, public.job_nodes, public.job_gpus, public.nodes, public.job_samples,
            public.gpu_samples, public.energy_samples, public.audit_chain, public.audit_log,
            public.job_audit_events, public.job_efficiency, public.job_energy, public.benchmark_metric_def,
            public.benchmark_recipe, public.benchmark_run, public.benchmark_run_job, public.benchmark_metric,
            public.benchmark_energy, public.benchmark_verdict, public.benchmark_decision,
            public.benchmark_reference, public.benchmark_run_summary, public.alembic_version TO jobtrail_reader;
        -- Not the salt: with it, an erased payload could be guessed from its commitment.
        GRANT SELECT (chain_id, seq, received_at, payload, job_snapshot, person, sent_by) ON public.audit_payload TO jobtrail_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_auditor') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_auditor;
        GRANT SELECT ON public.audit_chain, public.audit_log, public.audit_payload, public.audit_conflict,
            public.jobs_withdrawn,
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
              AND c.relname ~ '^(jobs|job_|gpu_samples|energy_samples|benchmark_|audit_|nodes$)'
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
