-- Jobs that people keep by hand would be unknown to the release before; their trail stays.
DROP FUNCTION jobtrail_withdraw_jobs(jsonb);
DROP TABLE jobs_withdrawn;
DROP VIEW job_audit_events;
CREATE VIEW job_audit_events AS
SELECT l.cluster_name, l.job_id, l.run, l.node, l.kind AS event_kind, l.change_type, l.changed_at, l.received_at,
       l.stored_at, l.changed_by, l.source, l.correlation_id, l.event_id, l.chain_id, l.seq, l.unapplied,
       jobtrail_event_json(p.payload) AS event, p.job_snapshot
FROM audit_log l
LEFT JOIN audit_payload p ON p.chain_id = l.chain_id AND p.seq = l.seq AND p.received_at = l.received_at
WHERE l.job_id IS NOT NULL;
COMMENT ON VIEW job_audit_events IS 'What happened to each job, by whom, and the job after it.';
DROP INDEX audit_log_request_idx;
DROP INDEX audit_payload_person_idx;
DROP INDEX audit_payload_sent_by_idx;
ALTER TABLE audit_log DROP COLUMN request_id;
ALTER TABLE audit_payload DROP COLUMN person, DROP COLUMN sent_by;
COMMENT ON COLUMN jobs.outcome_source IS 'Whose word decided state and verdict: slurmdbd, slurmctld, sacct, controller_hook, epilog or sender.';

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
        -- A node that Slurm no longer has goes away; of jobs nothing is ever deleted by a daemon.
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.nodes TO jobtrail_ingest;
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
        GRANT SELECT ON public.jobs, public.job_nodes, public.job_gpus, public.nodes, public.job_samples,
            public.gpu_samples, public.energy_samples, public.audit_chain, public.audit_log,
            public.job_audit_events, public.job_efficiency, public.job_energy, public.benchmark_metric_def,
            public.benchmark_recipe, public.benchmark_run, public.benchmark_run_job, public.benchmark_metric,
            public.benchmark_energy, public.benchmark_verdict, public.benchmark_decision,
            public.benchmark_reference, public.benchmark_run_summary, public.alembic_version TO jobtrail_reader;
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
