-- The nodes of the clusters, and what Slurm itself says of runs beside the hooks.

CREATE TABLE nodes (
    cluster_name text NOT NULL,
    node text NOT NULL,
    state text NOT NULL,
    state_flags text[] NOT NULL DEFAULT '{}',
    reason text,
    cpus integer,
    cpus_allocated integer,
    cpu_load double precision,
    memory_bytes bigint,
    memory_allocated_bytes bigint,
    memory_free_bytes bigint,
    gpus integer,
    gpus_allocated integer,
    boot_time timestamptz,
    slurmd_start_time timestamptz,
    slurmd_version text,
    partitions text[] NOT NULL DEFAULT '{}',
    first_seen_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    state_changed_at timestamptz NOT NULL,
    PRIMARY KEY (cluster_name, node)
);
CREATE INDEX nodes_partitions_idx ON nodes USING gin (partitions);
COMMENT ON TABLE nodes IS 'One row for each node that Slurm has, as slurmctld last described it; rows of nodes it no longer has go away.';
COMMENT ON COLUMN nodes.state IS 'Slurm''s base state in small letters: idle, mixed, allocated, down, unknown and so on.';
COMMENT ON COLUMN nodes.state_flags IS 'What Slurm says beside the base state, in small letters: drain, not_responding, completing and so on.';
COMMENT ON COLUMN nodes.reason IS 'Why the node is down or drained, in its administrator''s or slurmctld''s words.';
COMMENT ON COLUMN nodes.cpu_load IS 'Runnable processes, mean of one minute, as slurmd reported it.';
COMMENT ON COLUMN nodes.memory_free_bytes IS 'Free memory as slurmd reported it; page cache counts as used.';
COMMENT ON COLUMN nodes.first_seen_at IS 'When Slurm was first heard to have the node.';
COMMENT ON COLUMN nodes.updated_at IS 'When Slurm was last asked; values older than a few minutes say nothing of now.';
COMMENT ON COLUMN nodes.state_changed_at IS 'When state or state_flags were first seen as they are.';

ALTER TABLE jobs
    ADD COLUMN het_job_offset integer,
    ADD COLUMN derived_exit_code integer,
    ADD COLUMN derived_exit_signal integer,
    ADD COLUMN out_of_memory_step boolean NOT NULL DEFAULT false,
    ADD COLUMN memory_requested_bytes bigint,
    ADD COLUMN suspended_seconds double precision,
    ADD COLUMN end_not_before timestamptz,
    ADD COLUMN nodes_total integer,
    ADD COLUMN awaits text,
    ADD COLUMN outcome_source text,
    ADD CONSTRAINT jobs_awaits_check CHECK (awaits IN ('facts', 'end', 'outcome', 'usage'));
COMMENT ON COLUMN jobs.het_job_offset IS 'Which component of the heterogeneous job het_leader_job_id this is, from 0.';
COMMENT ON COLUMN jobs.derived_exit_code IS 'Highest exit code of the job''s steps, which the job''s own can hide.';
COMMENT ON COLUMN jobs.derived_exit_signal IS 'Signal that ended the step with the highest exit status.';
COMMENT ON COLUMN jobs.out_of_memory_step IS 'A step ran out of memory, whatever became of the job.';
COMMENT ON COLUMN jobs.memory_requested_bytes IS 'Memory asked for, the whole run; NULL is unknown or no request.';
COMMENT ON COLUMN jobs.suspended_seconds IS 'Time for which the run was suspended, within start_time and end_time.';
COMMENT ON COLUMN jobs.end_not_before IS 'Earliest moment an inferred end can have been; end_time is the latest.';
COMMENT ON COLUMN jobs.nodes_total IS 'Nodes of the run; usage covers nodes_reporting of them. NULL is unknown.';
COMMENT ON COLUMN jobs.awaits IS 'What Slurm is still to be asked: facts (it goes on, Slurm said nothing yet), end, outcome, usage; NULL nothing.';
COMMENT ON COLUMN jobs.outcome_source IS 'Whose word decided state and verdict: slurmdbd, slurmctld, sacct, controller_hook, epilog or sender.';
CREATE INDEX jobs_submit_time_idx ON jobs (cluster_name, submit_time);
CREATE INDEX jobs_moment_idx ON jobs (coalesce(start_time, submit_time, end_time) DESC NULLS LAST);
CREATE INDEX jobs_open_idx ON jobs (cluster_name, start_time DESC) WHERE awaits IN ('facts', 'end');
-- Not updated_at, though it says when a run without any time was last heard of: it changes with every checkpoint, and a
-- row whose indexed columns change cannot be updated in place (heap-only tuples).
CREATE INDEX jobs_unsettled_idx ON jobs (cluster_name, coalesce(end_time, start_time, submit_time, 'infinity') DESC)
    WHERE awaits IN ('facts', 'outcome');
CREATE INDEX jobs_usage_idx ON jobs (cluster_name, coalesce(end_time, start_time, submit_time, 'infinity') DESC)
    WHERE awaits = 'usage';

-- Runs stored by an earlier release: nobody has asked Slurm about them yet, and what nodes told of start and end now
-- has names of its own. `jobtrail audit rebuild` brings the rest of these rows up to date.
UPDATE jobs SET
    projection = projection || jsonb_build_object(
        'begun_us', projection -> 'start_us', 'begun_inferred', coalesce(projection -> 'start_inferred', 'false'),
        'told_end_us', projection -> 'end_us', 'nodes_told', coalesce(projection -> 'nodes_ended', '0')),
    nodes_total = nullif(cardinality(nodes), 0),
    awaits = CASE WHEN job_id NOT LIKE 'slurm-%' THEN NULL
                  WHEN state IN ('pending', 'running') THEN 'facts'
                  WHEN NOT state_confirmed THEN 'outcome' END;

ALTER TABLE job_nodes
    ADD COLUMN end_inferred boolean NOT NULL DEFAULT false,
    ADD COLUMN end_not_before timestamptz;
COMMENT ON COLUMN job_nodes.end_inferred IS 'No epilog told this end; it follows from something else, such as a reboot or Slurm''s silence.';
COMMENT ON COLUMN job_nodes.end_not_before IS 'Earliest moment an inferred end can have been; ended_at is the latest.';

CREATE OR REPLACE VIEW job_efficiency AS
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
