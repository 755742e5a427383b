-- Jobs that people keep by hand, and who said what.

-- The names of people lie with what may be erased by the law's order; the ids of requests tell of nobody.
ALTER TABLE audit_payload ADD COLUMN person text, ADD COLUMN sent_by text;
ALTER TABLE audit_log ADD COLUMN request_id uuid;
COMMENT ON COLUMN audit_payload.person IS 'Who made the change, by their own word (X-Changed-By): nobody checked it. NULL where no person spoke.';
COMMENT ON COLUMN audit_payload.sent_by IS 'Who sent the change, as the daemon knew: a user by the kernel''s word, or whoever showed a token.';
COMMENT ON COLUMN audit_log.request_id IS 'The X-Correlation-Id that the request came with; correlation_id is the run''s own.';
CREATE INDEX audit_payload_person_idx ON audit_payload (person) WHERE person IS NOT NULL;
CREATE INDEX audit_payload_sent_by_idx ON audit_payload (sent_by) WHERE sent_by IS NOT NULL;
CREATE INDEX audit_log_request_idx ON audit_log (request_id) WHERE request_id IS NOT NULL;

CREATE OR REPLACE VIEW job_audit_events AS
SELECT l.cluster_name, l.job_id, l.run, l.node, l.kind AS event_kind, l.change_type, l.changed_at, l.received_at,
       l.stored_at, l.changed_by, l.source, l.correlation_id, l.event_id, l.chain_id, l.seq, l.unapplied,
       jobtrail_event_json(p.payload) AS event, p.job_snapshot, p.person, p.sent_by, l.request_id
FROM audit_log l
LEFT JOIN audit_payload p ON p.chain_id = l.chain_id AND p.seq = l.seq AND p.received_at = l.received_at
WHERE l.job_id IS NOT NULL;
COMMENT ON VIEW job_audit_events IS 'What happened to each job, by whom, and the job after it.';

-- Apart from jobs, so that no list, no view and no figure ever counts them.
CREATE TABLE jobs_withdrawn (
    cluster_name text NOT NULL,
    job_id text NOT NULL,
    run integer NOT NULL,
    withdrawn_at timestamptz NOT NULL,
    withdrawn_by text,
    sent_by text,
    user_name text,
    uid bigint,
    account text,
    correlation_id uuid NOT NULL,
    job jsonb NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    projection jsonb NOT NULL,
    PRIMARY KEY (cluster_name, job_id, run),
    CONSTRAINT jobs_withdrawn_manual_check CHECK (job_id LIKE 'manual-%')
);
CREATE INDEX jobs_withdrawn_job_id_idx ON jobs_withdrawn (job_id);
CREATE INDEX jobs_withdrawn_uid_idx ON jobs_withdrawn (uid) WHERE uid IS NOT NULL;
COMMENT ON TABLE jobs_withdrawn IS 'Manual jobs that were deleted. Their trail stays; derived from audit_log as jobs is.';
COMMENT ON COLUMN jobs_withdrawn.withdrawn_by IS 'Who deleted it, by their own word (X-Changed-By).';
COMMENT ON COLUMN jobs_withdrawn.sent_by IS 'Who sent the deletion, as the daemon knew.';
COMMENT ON COLUMN jobs_withdrawn.job IS 'The row of jobs as it would be now.';
COMMENT ON COLUMN jobs_withdrawn.projection IS 'What the columns are derived from, exactly as the projector wrote it.';
COMMENT ON COLUMN jobs.outcome_source IS 'Whose word decided state and verdict: slurmdbd, slurmctld, sacct, controller_hook, epilog, sender or person.';

CREATE FUNCTION jobtrail_withdraw_jobs(withdrawn jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    INSERT INTO public.jobs_withdrawn (
        cluster_name, job_id, run, withdrawn_at, withdrawn_by, sent_by, user_name, uid, account, correlation_id, job,
        projection
    )
    SELECT cluster_name, job_id, run, withdrawn_at, withdrawn_by, sent_by, user_name, uid, account, correlation_id, job,
        projection
    FROM jsonb_populate_recordset(NULL::public.jobs_withdrawn, withdrawn)
    ON CONFLICT (cluster_name, job_id, run) DO UPDATE SET (
        withdrawn_at, withdrawn_by, sent_by, user_name, uid, account, correlation_id, job, projection, stored_at
    ) = (
        EXCLUDED.withdrawn_at, EXCLUDED.withdrawn_by, EXCLUDED.sent_by, EXCLUDED.user_name, EXCLUDED.uid,
        EXCLUDED.account, EXCLUDED.correlation_id, EXCLUDED.job, EXCLUDED.projection, now()
    );
    DELETE FROM public.jobs j USING jsonb_populate_recordset(NULL::public.jobs_withdrawn, withdrawn) AS gone
    WHERE j.cluster_name = gone.cluster_name AND j.job_id = gone.job_id AND j.run = gone.run;
END
$body$;
COMMENT ON FUNCTION jobtrail_withdraw_jobs IS 'Moves manual jobs from jobs to jobs_withdrawn. Its table takes no others.';

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
