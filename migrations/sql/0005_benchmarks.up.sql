-- Benchmarks that ran as jobs: what was reported of them, and what follows from it.

CREATE TABLE benchmark_metric_def (
    metric text PRIMARY KEY,
    unit text NOT NULL,
    direction text NOT NULL,
    gates text[] NOT NULL DEFAULT '{}',
    min_rel double precision NOT NULL DEFAULT 0.05,
    CONSTRAINT benchmark_metric_def_direction_check CHECK (direction IN ('higher', 'lower', 'none'))
);
COMMENT ON TABLE benchmark_metric_def IS 'The vocabulary of results: the meaning of each metric''s number, whatever the tool calls it.';
COMMENT ON COLUMN benchmark_metric_def.direction IS 'Which way is better; none is a fact about the run.';
COMMENT ON COLUMN benchmark_metric_def.gates IS 'Statistics by which a run is judged unless its recipe names others.';
COMMENT ON COLUMN benchmark_metric_def.min_rel IS 'The least relative change that counts, unless the recipe says else.';
INSERT INTO benchmark_metric_def (metric, unit, direction, gates) VALUES
    ('output_token_throughput', 'token/s', 'higher', '{value}'),
    ('input_token_throughput', 'token/s', 'higher', '{}'),
    ('total_token_throughput', 'token/s', 'higher', '{}'),
    ('request_throughput', 'req/s', 'higher', '{}'),
    ('request_goodput', 'req/s', 'higher', '{}'),
    ('time_to_first_token', 's', 'lower', '{p50}'),
    ('time_per_output_token', 's', 'lower', '{p50}'),
    ('inter_token_latency', 's', 'lower', '{}'),
    ('normalized_time_per_output_token', 's', 'lower', '{}'),
    ('request_latency', 's', 'lower', '{}'),
    ('batch_latency', 's', 'lower', '{p50}'),
    ('duration', 's', 'none', '{}'),
    ('requests_completed', 'count', 'none', '{}'),
    ('requests_failed', 'count', 'none', '{}'),
    ('input_tokens', 'count', 'none', '{}'),
    ('output_tokens', 'count', 'none', '{}'),
    ('error_rate', 'ratio', 'lower', '{}'),
    ('spec_decode_acceptance_rate', 'ratio', 'higher', '{}'),
    ('energy_gpu', 'J', 'lower', '{}'),
    ('energy_cpu', 'J', 'lower', '{}'),
    ('energy_dram', 'J', 'lower', '{}'),
    ('energy_total', 'J', 'lower', '{}'),
    ('output_tokens_per_joule', 'token/J', 'higher', '{}'),
    ('energy_per_output_token', 'J/token', 'lower', '{}'),
    ('emissions', 'g', 'lower', '{}'),
    ('emissions_per_million_output_tokens', 'g', 'lower', '{}');

CREATE TABLE benchmark_recipe (
    name text NOT NULL,
    sha256 text NOT NULL,
    version text,
    body jsonb NOT NULL,
    first_reported_at timestamptz NOT NULL,
    first_event_id uuid NOT NULL,
    PRIMARY KEY (name, sha256)
);
COMMENT ON TABLE benchmark_recipe IS 'Recipes that runs followed, with all parameters resolved.';
COMMENT ON COLUMN benchmark_recipe.sha256 IS 'Of what decides the results: not of the partition, the time limit or the gate.';
COMMENT ON COLUMN benchmark_recipe.body IS 'As its first run had it; {} where that one did not say.';

CREATE TABLE benchmark_run (
    run_uid uuid PRIMARY KEY,
    cluster_name text NOT NULL,
    node text NOT NULL,
    recipe_name text,
    recipe_sha256 text,
    mode text NOT NULL,
    tool text,
    tool_version text,
    model text,
    model_revision text,
    parameters jsonb NOT NULL,
    fingerprint text NOT NULL,
    fingerprint_without_version text NOT NULL,
    fingerprint_parts jsonb NOT NULL,
    hardware text NOT NULL,
    gpu_model text,
    gpu_count bigint NOT NULL,
    mig_profile text,
    driver_version text,
    cpu_model text,
    cpu_count bigint,
    gpus text[] NOT NULL,
    power_limit_watts double precision,
    max_clock_mhz bigint,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    status text NOT NULL,
    invalid_reason text,
    error_rate double precision,
    repeats integer NOT NULL,
    measured tstzmultirange NOT NULL,
    output_tokens double precision,
    server_output_tokens bigint,
    token_count_source text,
    notes text[] NOT NULL,
    gates jsonb NOT NULL,
    claims jsonb NOT NULL,
    argv text[] NOT NULL,
    files jsonb NOT NULL,
    raw jsonb NOT NULL,
    report_sha256 text NOT NULL,
    uid bigint,
    user_name text,
    from_job boolean NOT NULL,
    event_id uuid NOT NULL,
    reported_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    looked_at timestamptz,
    settled_at timestamptz,
    counts boolean NOT NULL,
    open_reason text,
    energy_invalid_reason text,
    judged_at timestamptz,
    CONSTRAINT benchmark_run_mode_check CHECK (mode IN ('serve', 'latency', 'throughput', 'external')),
    CONSTRAINT benchmark_run_status_check CHECK (status IN ('ok', 'failed', 'invalid')),
    CONSTRAINT benchmark_run_time_check CHECK (ended_at >= started_at),
    CONSTRAINT benchmark_run_error_rate_check CHECK (error_rate BETWEEN 0 AND 1)
);
CREATE INDEX benchmark_run_started_at_idx ON benchmark_run (started_at DESC, run_uid);
CREATE INDEX benchmark_run_recipe_idx ON benchmark_run (recipe_name, started_at DESC);
CREATE INDEX benchmark_run_user_name_idx ON benchmark_run (user_name, started_at DESC);
CREATE INDEX benchmark_run_series_idx ON benchmark_run (fingerprint, ended_at DESC, run_uid DESC);
CREATE INDEX benchmark_run_hardware_idx ON benchmark_run (hardware, started_at DESC);
CREATE INDEX benchmark_run_model_idx ON benchmark_run (model, started_at DESC);
CREATE INDEX benchmark_run_ended_at_idx ON benchmark_run (ended_at DESC);
CREATE INDEX benchmark_run_open_idx ON benchmark_run (coalesce(looked_at, stored_at), run_uid) WHERE settled_at IS NULL;
CREATE INDEX benchmark_run_unjudged_idx ON benchmark_run (ended_at, run_uid) WHERE judged_at IS NULL AND status = 'ok';
COMMENT ON TABLE benchmark_run IS 'One row for each run of a benchmark, derived from audit_log up to reported_at; what follows the server works out.';
COMMENT ON COLUMN benchmark_run.cluster_name IS 'Of the daemon that took the report.';
COMMENT ON COLUMN benchmark_run.node IS 'Of the daemon that took the report.';
COMMENT ON COLUMN benchmark_run.fingerprint IS 'SHA-256 of fingerprint_parts, what decides how fast the run can be: only runs with the same are compared.';
COMMENT ON COLUMN benchmark_run.hardware IS 'The first 8 digits of the fingerprint.';
COMMENT ON COLUMN benchmark_run.cpu_count IS 'CPUs the run might use.';
COMMENT ON COLUMN benchmark_run.started_at IS 'Begin of the first repeat, without the server''s start and the warm-up; ended_at is the end of the last.';
COMMENT ON COLUMN benchmark_run.invalid_reason IS 'Why the run is not ok.';
COMMENT ON COLUMN benchmark_run.error_rate IS 'Failed requests of all requests; NULL is unknown.';
COMMENT ON COLUMN benchmark_run.measured IS 'The times of the repeats that have a valid result, without the pauses between them; empty: there is none.';
COMMENT ON COLUMN benchmark_run.output_tokens IS 'Of all repeats that count together; NULL unless each of them counted its tokens.';
COMMENT ON COLUMN benchmark_run.token_count_source IS 'server: as its usage says; client: counted by splitting the text anew; mixed.';
COMMENT ON COLUMN benchmark_run.notes IS 'What to know before trusting a number.';
COMMENT ON COLUMN benchmark_run.gates IS 'The least relative change that counts by metric.stat, where the recipe says it; {} is by the vocabulary.';
COMMENT ON COLUMN benchmark_run.claims IS 'The jobs that are said to have run it, before anybody checked.';
COMMENT ON COLUMN benchmark_run.raw IS 'Of each repeat the times, the exit status and the tool''s own result without arrays of single requests.';
COMMENT ON COLUMN benchmark_run.report_sha256 IS 'Of the report, without what the daemon wrote into it: the same report again is the same run.';
COMMENT ON COLUMN benchmark_run.user_name IS 'Who reported it, as the kernel says.';
COMMENT ON COLUMN benchmark_run.from_job IS 'Whether that was the user of a job then open on the node.';
COMMENT ON COLUMN benchmark_run.stored_at IS 'When this database took it in.';
COMMENT ON COLUMN benchmark_run.looked_at IS 'When its links and energy were last worked out.';
COMMENT ON COLUMN benchmark_run.settled_at IS 'Since when nothing more is awaited; NULL while open_reason is.';
COMMENT ON COLUMN benchmark_run.counts IS 'Whether others may be held against it: not while it names jobs that served and is linked to none of them.';
COMMENT ON COLUMN benchmark_run.energy_invalid_reason IS 'Why there are no numbers that need energy and tokens, or why not to trust them.';
COMMENT ON COLUMN benchmark_run.judged_at IS 'When it was last compared with the runs before it; NULL is to be done.';

CREATE TABLE benchmark_run_job (
    run_uid uuid NOT NULL REFERENCES benchmark_run ON DELETE CASCADE,
    position integer NOT NULL,
    role text NOT NULL,
    link_state text NOT NULL,
    link_source text NOT NULL,
    cluster_name text,
    job_id text NOT NULL,
    run integer,
    reason text,
    step_id text,
    node_list text,
    PRIMARY KEY (run_uid, position),
    CONSTRAINT benchmark_run_job_role_check CHECK (role IN ('server', 'client', 'both')),
    CONSTRAINT benchmark_run_job_state_check CHECK (link_state IN ('linked', 'pending', 'conflict')),
    CONSTRAINT benchmark_run_job_source_check CHECK (link_source IN ('manifest', 'metadata', 'path', 'person')),
    CONSTRAINT benchmark_run_job_linked_check
        CHECK (link_state <> 'linked' OR (cluster_name IS NOT NULL AND run IS NOT NULL))
);
CREATE INDEX benchmark_run_job_job_idx ON benchmark_run_job (job_id, cluster_name, run);
COMMENT ON TABLE benchmark_run_job IS 'The jobs of each benchmark run, and whether the claim is believed.';
COMMENT ON COLUMN benchmark_run_job.role IS 'What the job did; energy is of the job that served.';
COMMENT ON COLUMN benchmark_run_job.link_state IS 'linked; pending: the job is not known yet; conflict: what is known of the job contradicts the claim.';
COMMENT ON COLUMN benchmark_run_job.link_source IS 'Where the claim comes from, the most trusted first: manifest, metadata, path, person.';
COMMENT ON COLUMN benchmark_run_job.cluster_name IS 'With job_id and run the key of jobs; as claimed, or NULL, unless it is linked.';

CREATE TABLE benchmark_metric (
    run_uid uuid NOT NULL REFERENCES benchmark_run ON DELETE CASCADE,
    repeat integer NOT NULL,
    metric text NOT NULL REFERENCES benchmark_metric_def,
    stat text NOT NULL,
    value double precision NOT NULL,
    settled boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run_uid, repeat, metric, stat),
    CONSTRAINT benchmark_metric_repeat_check CHECK (repeat >= 0),
    CONSTRAINT benchmark_metric_stat_check CHECK (stat IN ('value', 'mean', 'std') OR stat ~ '^p[0-9]{1,2}(\.[0-9]{1,3})?$'),
    CONSTRAINT benchmark_metric_value_check CHECK (value >= 0 AND value < 'infinity')
);
CREATE INDEX benchmark_metric_value_idx ON benchmark_metric (metric, stat, value) INCLUDE (run_uid) WHERE repeat = 0;
COMMENT ON TABLE benchmark_metric IS 'The numbers of each run, in the unit of benchmark_metric_def; what was not measured has no row.';
COMMENT ON COLUMN benchmark_metric.repeat IS '0 is the run''s own value: the median over its repeats 1, 2 and so on.';
COMMENT ON COLUMN benchmark_metric.settled IS 'Worked out from the job''s energy, not reported.';

CREATE TABLE benchmark_energy (
    run_uid uuid NOT NULL REFERENCES benchmark_run ON DELETE CASCADE,
    time_window text NOT NULL,
    domain text NOT NULL,
    joules double precision NOT NULL,
    method text NOT NULL,
    coverage double precision NOT NULL,
    pue double precision,
    factor_grams_per_kwh double precision,
    factor_source text,
    factor_year integer,
    PRIMARY KEY (run_uid, time_window, domain),
    CONSTRAINT benchmark_energy_window_check CHECK (time_window IN ('bench', 'job')),
    CONSTRAINT benchmark_energy_domain_check CHECK (domain IN ('gpu', 'cpu', 'dram', 'total')),
    CONSTRAINT benchmark_energy_joules_check CHECK (joules >= 0 AND joules < 'infinity'),
    CONSTRAINT benchmark_energy_coverage_check CHECK (coverage BETWEEN 0 AND 1)
);
COMMENT ON TABLE benchmark_energy IS 'Energy of the job that served, over the run''s repeats (bench) and over all of the job (job).';
COMMENT ON COLUMN benchmark_energy.time_window IS 'bench: benchmark_run.measured, the loads without the pauses between them, and where that is empty all of the run''s time; job: all of the job, with the loading of the model.';
COMMENT ON COLUMN benchmark_energy.domain IS 'total is of the components that have a number.';
COMMENT ON COLUMN benchmark_energy.coverage IS 'Part of the window that was measured, 0 to 1; what was used in the rest is not known and not in joules.';

CREATE TABLE benchmark_verdict (
    run_uid uuid NOT NULL REFERENCES benchmark_run ON DELETE CASCADE,
    metric text NOT NULL REFERENCES benchmark_metric_def,
    stat text NOT NULL,
    verdict text NOT NULL,
    advisory boolean NOT NULL,
    baseline_n integer NOT NULL,
    median double precision,
    mad_log double precision,
    z double precision,
    relative_change double precision,
    min_detectable double precision,
    confirmed_by text,
    reference_uid uuid,
    reference_change double precision,
    rule_version integer NOT NULL,
    judged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_uid, metric, stat),
    CONSTRAINT benchmark_verdict_check
        CHECK (verdict IN ('ok', 'suspect', 'regression', 'improvement', 'suspect_improvement', 'insufficient'))
);
CREATE INDEX benchmark_verdict_bad_idx ON benchmark_verdict (verdict, run_uid) WHERE verdict IN ('suspect', 'regression');
COMMENT ON TABLE benchmark_verdict IS 'What each judged metric of a run is against the runs before it with the same fingerprint.';
COMMENT ON COLUMN benchmark_verdict.advisory IS 'Told, and no part of the run''s own verdict.';
COMMENT ON COLUMN benchmark_verdict.baseline_n IS 'Runs it was compared with; too few are insufficient, never ok.';
COMMENT ON COLUMN benchmark_verdict.mad_log IS 'Median absolute deviation of the logarithms of the baseline.';
COMMENT ON COLUMN benchmark_verdict.z IS 'Distance from the median of the logarithms, in robust standard deviations.';
COMMENT ON COLUMN benchmark_verdict.relative_change IS 'Run / median of the baseline - 1.';
COMMENT ON COLUMN benchmark_verdict.min_detectable IS 'The smallest relative change that this baseline''s noise lets be seen.';
COMMENT ON COLUMN benchmark_verdict.confirmed_by IS 'The next run, or repeats: those of this run.';
COMMENT ON COLUMN benchmark_verdict.reference_uid IS 'The pinned run it was compared with as well.';

CREATE TABLE benchmark_decision (
    run_uid uuid NOT NULL,
    event_id uuid NOT NULL,
    decision text NOT NULL,
    decided_at timestamptz NOT NULL,
    decided_by text NOT NULL,
    reason text,
    PRIMARY KEY (run_uid, event_id),
    CONSTRAINT benchmark_decision_check CHECK (decision IN ('accept', 'pin', 'unpin'))
);
COMMENT ON TABLE benchmark_decision IS 'What people decided about runs as references for others; derived from audit_log.';
COMMENT ON COLUMN benchmark_decision.decision IS 'accept: a confirmed regression is the new normal; pin: later runs are compared with this one as well, until another one is pinned.';
COMMENT ON COLUMN benchmark_decision.reason IS 'In that person''s words.';

CREATE VIEW benchmark_reference AS
SELECT r.run_uid, r.fingerprint, r.ended_at,
       EXISTS (SELECT FROM benchmark_decision a WHERE a.run_uid = r.run_uid AND a.decision = 'accept') AS accepted,
       p.event_id IS NOT NULL
           AND NOT EXISTS (SELECT FROM benchmark_decision u
                           WHERE u.run_uid = r.run_uid AND u.decision = 'unpin'
                             AND (u.decided_at, u.event_id) > (p.decided_at, p.event_id))
           AND NOT EXISTS (SELECT FROM benchmark_decision o JOIN benchmark_run other ON other.run_uid = o.run_uid
                           WHERE o.decision = 'pin' AND o.run_uid <> r.run_uid AND other.fingerprint = r.fingerprint
                             AND (o.decided_at, o.event_id) > (p.decided_at, p.event_id)) AS pinned
FROM (SELECT DISTINCT run_uid FROM benchmark_decision) d
JOIN benchmark_run r ON r.run_uid = d.run_uid
LEFT JOIN LATERAL (
    SELECT decided_at, event_id FROM benchmark_decision
    WHERE run_uid = r.run_uid AND decision = 'pin' ORDER BY decided_at DESC, event_id DESC LIMIT 1
) p ON true;
COMMENT ON VIEW benchmark_reference IS 'Runs that somebody decided about, and what holds now.';

CREATE VIEW benchmark_run_summary AS
SELECT r.run_uid, r.recipe_name AS recipe, c.version AS recipe_version, r.recipe_sha256, r.mode, r.tool, r.tool_version,
       r.model, r.model_revision, r.status, r.invalid_reason,
       (SELECT v.verdict FROM benchmark_verdict v WHERE v.run_uid = r.run_uid AND NOT v.advisory
        ORDER BY array_position(ARRAY['regression', 'suspect', 'insufficient', 'ok', 'suspect_improvement', 'improvement'],
                                v.verdict) LIMIT 1) AS verdict,
       r.started_at, r.ended_at, r.repeats,
       coalesce(l.cluster_name, r.cluster_name) AS cluster_name, l.job_id, l.run, l.role AS job_role, l.link_state,
       l.link_source, l.reason AS link_reason, coalesce(j.user_name, r.user_name) AS user_name, j.account, j.partition,
       j.state AS job_state, j.verdict AS job_verdict, j.correlation_id,
       m.output_tokens_per_second, m.total_tokens_per_second, m.requests_per_second, m.goodput_requests_per_second,
       m.ttft_p50_seconds, m.ttft_p99_seconds, m.tpot_p50_seconds, m.tpot_p99_seconds, m.itl_p50_seconds,
       m.latency_p50_seconds, m.latency_p99_seconds, m.batch_latency_p50_seconds, r.error_rate AS error_ratio,
       extract(epoch FROM r.ended_at - r.started_at)::double precision AS duration_seconds,
       r.output_tokens, r.token_count_source,
       e.gpu_joules, e.cpu_joules, e.dram_joules, e.total_joules, e.energy_coverage_ratio, e.energy_method,
       e.job_gpu_joules, e.job_cpu_joules, e.job_dram_joules, e.job_total_joules, e.job_energy_coverage_ratio,
       e.job_energy_method, m.output_tokens_per_joule, m.joules_per_output_token, m.emissions_grams,
       m.emissions_grams_per_million_output_tokens, r.energy_invalid_reason,
       r.hardware, r.fingerprint, r.gpu_model, r.gpu_count, r.mig_profile, r.driver_version, r.cpu_model, r.cpu_count,
       coalesce(b.accepted, false) AS accepted, coalesce(b.pinned, false) AS pinned,
       r.user_name AS reported_by, r.reported_at, r.stored_at, r.settled_at, r.open_reason, r.notes
FROM benchmark_run r
LEFT JOIN benchmark_recipe c ON c.name = r.recipe_name AND c.sha256 = r.recipe_sha256
LEFT JOIN LATERAL (
    SELECT * FROM benchmark_run_job k WHERE k.run_uid = r.run_uid
    ORDER BY k.role = 'client', array_position(ARRAY['linked', 'pending', 'conflict'], k.link_state), k.position LIMIT 1
) l ON true
LEFT JOIN jobs j ON l.link_state = 'linked' AND j.cluster_name = l.cluster_name AND j.job_id = l.job_id AND j.run = l.run
LEFT JOIN LATERAL (
    SELECT max(value) FILTER (WHERE metric = 'output_token_throughput' AND stat = 'value') AS output_tokens_per_second,
           max(value) FILTER (WHERE metric = 'total_token_throughput' AND stat = 'value') AS total_tokens_per_second,
           max(value) FILTER (WHERE metric = 'request_throughput' AND stat = 'value') AS requests_per_second,
           max(value) FILTER (WHERE metric = 'request_goodput' AND stat = 'value') AS goodput_requests_per_second,
           max(value) FILTER (WHERE metric = 'time_to_first_token' AND stat = 'p50') AS ttft_p50_seconds,
           max(value) FILTER (WHERE metric = 'time_to_first_token' AND stat = 'p99') AS ttft_p99_seconds,
           max(value) FILTER (WHERE metric = 'time_per_output_token' AND stat = 'p50') AS tpot_p50_seconds,
           max(value) FILTER (WHERE metric = 'time_per_output_token' AND stat = 'p99') AS tpot_p99_seconds,
           max(value) FILTER (WHERE metric = 'inter_token_latency' AND stat = 'p50') AS itl_p50_seconds,
           max(value) FILTER (WHERE metric = 'request_latency' AND stat = 'p50') AS latency_p50_seconds,
           max(value) FILTER (WHERE metric = 'request_latency' AND stat = 'p99') AS latency_p99_seconds,
           max(value) FILTER (WHERE metric = 'batch_latency' AND stat = 'p50') AS batch_latency_p50_seconds,
           max(value) FILTER (WHERE metric = 'output_tokens_per_joule' AND stat = 'value') AS output_tokens_per_joule,
           max(value) FILTER (WHERE metric = 'energy_per_output_token' AND stat = 'value') AS joules_per_output_token,
           max(value) FILTER (WHERE metric = 'emissions' AND stat = 'value') AS emissions_grams,
           max(value) FILTER (WHERE metric = 'emissions_per_million_output_tokens' AND stat = 'value')
               AS emissions_grams_per_million_output_tokens
    FROM benchmark_metric WHERE run_uid = r.run_uid AND repeat = 0
) m ON true
LEFT JOIN LATERAL (
    SELECT max(joules) FILTER (WHERE time_window = 'bench' AND domain = 'gpu') AS gpu_joules,
           max(joules) FILTER (WHERE time_window = 'bench' AND domain = 'cpu') AS cpu_joules,
           max(joules) FILTER (WHERE time_window = 'bench' AND domain = 'dram') AS dram_joules,
           max(joules) FILTER (WHERE time_window = 'bench' AND domain = 'total') AS total_joules,
           max(coverage) FILTER (WHERE time_window = 'bench' AND domain = 'total') AS energy_coverage_ratio,
           max(method) FILTER (WHERE time_window = 'bench' AND domain = 'total') AS energy_method,
           max(joules) FILTER (WHERE time_window = 'job' AND domain = 'gpu') AS job_gpu_joules,
           max(joules) FILTER (WHERE time_window = 'job' AND domain = 'cpu') AS job_cpu_joules,
           max(joules) FILTER (WHERE time_window = 'job' AND domain = 'dram') AS job_dram_joules,
           max(joules) FILTER (WHERE time_window = 'job' AND domain = 'total') AS job_total_joules,
           max(coverage) FILTER (WHERE time_window = 'job' AND domain = 'total') AS job_energy_coverage_ratio,
           max(method) FILTER (WHERE time_window = 'job' AND domain = 'total') AS job_energy_method
    FROM benchmark_energy WHERE run_uid = r.run_uid
) e ON true
LEFT JOIN benchmark_reference b ON b.run_uid = r.run_uid;
COMMENT ON VIEW benchmark_run_summary IS 'Each run of a benchmark with its job, its main numbers, its energy and its worst verdict. NULL is not known, never 0.';

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
