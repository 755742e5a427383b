-- Undoes this revision: the columns' values and the nodes are lost; the trail keeps the events they came from.

DROP VIEW job_efficiency;
DROP TABLE nodes;
ALTER TABLE job_nodes DROP COLUMN end_inferred, DROP COLUMN end_not_before;
ALTER TABLE jobs
    DROP COLUMN het_job_offset,
    DROP COLUMN derived_exit_code,
    DROP COLUMN derived_exit_signal,
    DROP COLUMN out_of_memory_step,
    DROP COLUMN memory_requested_bytes,
    DROP COLUMN suspended_seconds,
    DROP COLUMN end_not_before,
    DROP COLUMN nodes_total,
    DROP COLUMN awaits,
    DROP COLUMN outcome_source;
DROP INDEX jobs_submit_time_idx, jobs_moment_idx;

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
SELECT jobtrail_apply_grants();
