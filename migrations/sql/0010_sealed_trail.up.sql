-- The trail is written through one function that checks it, sealed by checkpoints, and forgets by order only.

DO $roles$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['jobtrail_sealer', 'jobtrail_retention', 'jobtrail_erase'] LOOP
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

ALTER TABLE audit_chain
    ADD COLUMN store_hash bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000',
    ADD COLUMN pruned_seq bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN audit_chain.store_hash IS 'That of the last row; zeros where it has none.';
COMMENT ON COLUMN audit_chain.pruned_seq IS 'Rows up to this one were removed by jobtrail_prune.';

ALTER TABLE audit_log
    ADD COLUMN snapshot_commitment bytea,
    ADD COLUMN store_hash bytea;
COMMENT ON COLUMN audit_log.snapshot_commitment IS 'SHA-256 over salt and job_snapshot as text; NULL in rows stored before this was kept.';
COMMENT ON COLUMN audit_log.store_hash IS 'SHA-256 over the store hash of the row before, row_hash, and what the database added; NULL in rows stored before this was kept.';

CREATE TABLE audit_checkpoint (
    number bigint PRIMARY KEY,
    previous bytea NOT NULL UNIQUE,
    root bytea NOT NULL,
    leaf_count bigint NOT NULL,
    total_rows bigint NOT NULL,
    sealed_at timestamptz NOT NULL,
    digest bytea NOT NULL,
    signature bytea,
    key_id text,
    CONSTRAINT audit_checkpoint_number_check CHECK (number >= 1 AND leaf_count >= 1)
);
COMMENT ON TABLE audit_checkpoint IS 'One hash over the heads of all chains that moved since the one before. Insert only.';
COMMENT ON COLUMN audit_checkpoint.digest IS 'The checkpoint''s own hash, which the next one holds as previous.';
COMMENT ON COLUMN audit_checkpoint.signature IS 'Ed25519, over what digest is the hash of; NULL where no key is configured.';

CREATE TABLE audit_checkpoint_leaf (
    number bigint NOT NULL REFERENCES audit_checkpoint,
    position bigint NOT NULL,
    chain_id uuid NOT NULL,
    head_seq bigint NOT NULL,
    head_hash bytea NOT NULL,
    store_hash bytea NOT NULL,
    PRIMARY KEY (number, position),
    UNIQUE (chain_id, head_seq)
);
COMMENT ON TABLE audit_checkpoint_leaf IS 'What a checkpoint covers: the heads of chains, in the order of the tree. Insert only.';

CREATE TABLE audit_seal (
    chain_id uuid PRIMARY KEY,
    number bigint NOT NULL,
    position bigint NOT NULL,
    head_seq bigint NOT NULL,
    head_hash bytea NOT NULL,
    store_hash bytea NOT NULL,
    path bytea NOT NULL
);
COMMENT ON TABLE audit_seal IS 'The newest checkpoint of each chain, with the path to its root: handed to the chain''s writer, who checks it.';

CREATE TABLE audit_verification (
    kind text PRIMARY KEY,
    number bigint NOT NULL,
    digest bytea,
    verified_at timestamptz NOT NULL,
    row_count bigint NOT NULL,
    findings bigint NOT NULL,
    CONSTRAINT audit_verification_kind_check CHECK (kind IN ('incremental', 'full'))
);
COMMENT ON TABLE audit_verification IS 'How far the trail was verified, by the servers or by `jobtrail audit verify --record`.';

CREATE TABLE audit_hold (
    placed_at timestamptz PRIMARY KEY,
    placed_by text NOT NULL,
    reason text NOT NULL,
    lifted_at timestamptz,
    lifted_by text
);
COMMENT ON TABLE audit_hold IS 'Legal holds: while one is not lifted nothing is erased or pruned.';

CREATE TABLE audit_removed_run (
    cluster_name text NOT NULL,
    job_id text NOT NULL,
    run integer NOT NULL,
    noted_seq bigint NOT NULL,
    PRIMARY KEY (cluster_name, job_id, run)
);
COMMENT ON TABLE audit_removed_run IS 'Runs of which the trail no longer has every event; row noted_seq of the chain of node @store says why.';

-- A row here lets deletions pass the triggers until its transaction ends; only the functions below write one.
CREATE TABLE audit_permit (xact xid8 PRIMARY KEY);
COMMENT ON TABLE audit_permit IS 'Empty but within jobtrail_erase and jobtrail_prune.';

CREATE OR REPLACE FUNCTION jobtrail_refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM public.audit_permit WHERE xact = pg_current_xact_id_if_assigned()) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% on % refused: the audit trail is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$body$;

DO $guards$
DECLARE
    guarded text;
BEGIN
    FOREACH guarded IN ARRAY ARRAY['audit_checkpoint', 'audit_checkpoint_leaf', 'audit_removed_run'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON public.%I '
                       'FOR EACH ROW EXECUTE FUNCTION public.jobtrail_refuse_change()', guarded || '_append_only', guarded);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON public.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION public.jobtrail_refuse_change()', guarded || '_no_truncate', guarded);
        EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER %I', guarded, guarded || '_append_only');
        EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER %I', guarded, guarded || '_no_truncate');
    END LOOP;
END
$guards$;

CREATE FUNCTION jobtrail_row_hash(
    chain uuid, seq bigint, prev_hash bytea, time_us bigint, kind text, event_id uuid, commitment bytea
) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $body$
    SELECT pg_catalog.sha256('jobtrail-audit-row-v1'::bytea || '\x00'::bytea || uuid_send(chain) || int8send(seq)
        || prev_hash || int8send(time_us) || substring(int4send(octet_length(convert_to(kind, 'UTF8'))) FROM 3)
        || convert_to(kind, 'UTF8') || uuid_send(event_id) || commitment)
$body$;
COMMENT ON FUNCTION jobtrail_row_hash IS 'The hash of a row of the trail as its writer makes it.';

CREATE FUNCTION jobtrail_field(value text) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $body$
    SELECT CASE WHEN value IS NULL THEN '\xffffffff'::bytea
                ELSE int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') END
$body$;
COMMENT ON FUNCTION jobtrail_field IS 'A text within a hash: its length and its bytes; another mark for NULL.';

CREATE FUNCTION jobtrail_time_us(moment timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $body$
    SELECT (extract(epoch FROM moment) * 1000000)::bigint
$body$;
COMMENT ON FUNCTION jobtrail_time_us IS 'Microseconds since 1970.';

CREATE FUNCTION jobtrail_ingest(
    chain uuid, writer text, seqs bigint[], event_ids uuid[], kinds text[], times_us bigint[], received_us bigint[],
    payloads bytea[], salts bytea[], prev_hashes bytea[], commitments bytea[], row_hashes bytea[],
    changed_bys text[], sources text[], change_types text[], clusters text[], job_ids text[], runs integer[],
    nodes text[], correlations uuid[], unapplieds text[], snapshots jsonb[],
    OUT head_seq bigint, OUT head_hash bytea, OUT stored integer, OUT replayed integer, OUT conflicts bigint[],
    OUT problem text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    held record;
    one record;
    beyond bigint;  -- position of the first row that is not held yet
    bad bigint;     -- position of the first row that does not link
    last bigint;    -- position of the last row to store
    previous bytea;
    stores bytea[] := '{}';
    shots bytea[] := '{}';
    stored_at timestamptz := now();
BEGIN
    IF writer IS NULL OR left(writer, 1) = '@' THEN
        RAISE EXCEPTION 'no node has the name %', coalesce(writer, 'NULL') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM set_config('synchronous_commit', 'on', true);  -- what is answered for must be on the disk
    LOOP
        SELECT * INTO held FROM audit_chain c WHERE c.chain_id = chain FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO audit_chain (chain_id, node, head_seq, head_hash) VALUES (chain, writer, 0, decode(repeat('00', 32), 'hex'))
            ON CONFLICT (chain_id) DO NOTHING;
    END LOOP;
    IF left(held.node, 1) = '@' THEN
        RAISE EXCEPTION 'chain % is the database''s own', chain USING ERRCODE = 'invalid_parameter_value';
    END IF;
    head_seq := held.head_seq;
    head_hash := held.head_hash;
    stored := 0;
    replayed := 0;
    conflicts := '{}';
    IF cardinality(seqs) = 0 THEN
        RETURN;
    END IF;

    -- What is held already must be the same.
    WITH offered AS (
        SELECT * FROM unnest(seqs, row_hashes, payloads) AS o (seq, row_hash, payload) WHERE o.seq <= held.head_seq
    ), compared AS (
        SELECT o.*, l.row_hash AS held_hash FROM offered o
        LEFT JOIN audit_log l ON l.chain_id = chain AND l.seq = o.seq
    ), different AS (
        SELECT * FROM compared c WHERE c.held_hash IS DISTINCT FROM c.row_hash AND c.seq > held.pruned_seq
    ), recorded AS (
        INSERT INTO audit_conflict (chain_id, seq, held_hash, offered_hash, payload, reason)
        SELECT chain, d.seq, d.held_hash, d.row_hash, d.payload,
               CASE WHEN d.held_hash IS NULL THEN 'the row under this number is missing'
                    ELSE 'another row is held under this number' END
        FROM different d
        ON CONFLICT (chain_id, seq, offered_hash) DO NOTHING
    )
    SELECT (SELECT count(*) FROM offered), coalesce(array_agg(d.seq ORDER BY d.seq), '{}') INTO beyond, conflicts
    FROM different d;
    replayed := beyond - cardinality(conflicts);
    beyond := beyond + 1;
    last := cardinality(seqs);
    IF beyond > last THEN
        RETURN;
    END IF;

    -- The rest must follow the head, link by link, and hash to what it says.
    SELECT q.n, CASE
               WHEN q.seq IS DISTINCT FROM q.before_seq + 1 THEN format('sequence %s does not follow %s', q.seq, q.before_seq)
               WHEN q.prev_hash IS DISTINCT FROM q.before_hash
                   THEN format('sequence %s: previous hash differs from the row before', q.seq)
               WHEN q.commitment IS DISTINCT FROM q.expected_commitment
                   THEN format('sequence %s: payload differs from its commitment', q.seq)
               ELSE format('sequence %s: row hash differs from its content', q.seq)
           END INTO bad, problem
    FROM (
        SELECT o.*, lag(o.seq, 1, held.head_seq) OVER w AS before_seq, lag(o.row_hash, 1, held.head_hash) OVER w AS before_hash,
               sha256('jobtrail-audit-payload-v1'::bytea || '\x00'::bytea || o.salt || o.payload) AS expected_commitment,
               jobtrail_row_hash(chain, o.seq, o.prev_hash, o.time_us, o.kind, o.event_id, o.commitment) AS expected_hash
        FROM unnest(seqs, event_ids, kinds, times_us, payloads, salts, prev_hashes, commitments, row_hashes)
            WITH ORDINALITY AS o (seq, event_id, kind, time_us, payload, salt, prev_hash, commitment, row_hash, n)
        WHERE o.n >= beyond
        WINDOW w AS (ORDER BY o.n)
    ) q
    WHERE q.seq IS DISTINCT FROM q.before_seq + 1 OR q.prev_hash IS DISTINCT FROM q.before_hash
       OR q.commitment IS DISTINCT FROM q.expected_commitment OR q.row_hash IS DISTINCT FROM q.expected_hash
    ORDER BY q.n LIMIT 1;
    IF bad IS NOT NULL THEN
        INSERT INTO audit_conflict (chain_id, seq, held_hash, offered_hash, payload, reason)
        VALUES (chain, seqs[bad], CASE WHEN bad = beyond THEN held.head_hash ELSE row_hashes[bad - 1] END,
                row_hashes[bad], payloads[bad], problem)
        ON CONFLICT (chain_id, seq, offered_hash) DO NOTHING;
        last := bad - 1;
        IF bad = beyond THEN
            RETURN;
        END IF;
    END IF;

    previous := held.store_hash;
    FOR one IN
        SELECT o.row_hash,
               sha256('jobtrail-audit-snapshot-v1'::bytea || '\x00'::bytea || o.salt
                      || convert_to(coalesce(o.snapshot::text, ''), 'UTF8')) AS shot,
               int8send(o.received_us) || int8send(jobtrail_time_us(stored_at)) || jobtrail_field(o.changed_by)
                   || jobtrail_field(o.source) || jobtrail_field(o.change_type) || jobtrail_field(o.cluster_name)
                   || jobtrail_field(o.job_id) || jobtrail_field(o.run::text) || jobtrail_field(o.node)
                   || jobtrail_field(o.correlation_id::text) || jobtrail_field(o.unapplied) AS note
        FROM unnest(row_hashes, salts, received_us, changed_bys, sources, change_types, clusters, job_ids, runs, nodes,
                    correlations, unapplieds, snapshots)
            WITH ORDINALITY AS o (row_hash, salt, received_us, changed_by, source, change_type, cluster_name, job_id, run,
                                  node, correlation_id, unapplied, snapshot, n)
        WHERE o.n BETWEEN beyond AND last
        ORDER BY o.n
    LOOP
        previous := sha256('jobtrail-audit-store-v1'::bytea || '\x00'::bytea || previous || one.row_hash || one.shot || one.note);
        stores := stores || previous;
        shots := shots || one.shot;
    END LOOP;

    INSERT INTO audit_log (chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at, received_at, stored_at,
                           changed_by, source, change_type, cluster_name, job_id, run, node, correlation_id, unapplied,
                           snapshot_commitment, store_hash)
    SELECT chain, o.seq, o.event_id, o.kind, o.prev_hash, o.commitment, o.row_hash,
           'epoch'::timestamptz + o.time_us * interval '1 microsecond',
           'epoch'::timestamptz + o.received_us * interval '1 microsecond', stored_at,
           o.changed_by, o.source, o.change_type, o.cluster_name, o.job_id, o.run, o.node, o.correlation_id, o.unapplied,
           h.shot, h.store
    FROM unnest(seqs, event_ids, kinds, prev_hashes, commitments, row_hashes, times_us, received_us, changed_bys, sources,
                change_types, clusters, job_ids, runs, nodes, correlations, unapplieds)
        WITH ORDINALITY AS o (seq, event_id, kind, prev_hash, commitment, row_hash, time_us, received_us, changed_by, source,
                              change_type, cluster_name, job_id, run, node, correlation_id, unapplied, n)
    JOIN unnest(shots, stores) WITH ORDINALITY AS h (shot, store, n) ON h.n = o.n - beyond + 1
    WHERE o.n BETWEEN beyond AND last;

    INSERT INTO audit_payload (chain_id, seq, received_at, payload, salt, job_snapshot)
    SELECT chain, o.seq, 'epoch'::timestamptz + o.received_us * interval '1 microsecond', o.payload, o.salt, o.snapshot
    FROM unnest(seqs, received_us, payloads, salts, snapshots) WITH ORDINALITY AS o (seq, received_us, payload, salt, snapshot, n)
    WHERE o.n BETWEEN beyond AND last;

    stored := last - beyond + 1;
    head_seq := seqs[last];
    head_hash := row_hashes[last];
    UPDATE audit_chain c SET node = writer, head_seq = jobtrail_ingest.head_seq, head_hash = jobtrail_ingest.head_hash,
        store_hash = previous, updated_at = now()
    WHERE c.chain_id = chain;
END
$body$;
COMMENT ON FUNCTION jobtrail_ingest IS 'The one way into the trail: locks the chain, checks order and hashes, compares what is held, stores what follows. With no rows it locks the chain and says where it ends.';

CREATE FUNCTION jobtrail_seal(
    number bigint, previous bytea, root bytea, total_rows bigint, time_us bigint, signature bytea, key_id text,
    chains uuid[], seqs bigint[], hashes bytea[], store_hashes bytea[], paths bytea[]
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    newest record;
    wrong text;
    digest bytea;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(19028, -3);  -- one sealer at a time
    SELECT c.number, c.digest, c.total_rows INTO newest FROM audit_checkpoint c ORDER BY c.number DESC LIMIT 1;
    IF jobtrail_seal.number <> coalesce(newest.number, 0) + 1
       OR jobtrail_seal.previous <> coalesce(newest.digest, decode(repeat('00', 32), 'hex')) THEN
        RETURN false;  -- another sealer was first
    END IF;
    SELECT format('leaf %s: chain %s, sequence %s', o.n, o.chain, o.seq) INTO wrong
    FROM unnest(chains, seqs, hashes, store_hashes) WITH ORDINALITY AS o (chain, seq, hash, store, n)
    LEFT JOIN audit_log l ON l.chain_id = o.chain AND l.seq = o.seq
    LEFT JOIN audit_seal s ON s.chain_id = o.chain
    LEFT JOIN unnest(chains) WITH ORDINALITY AS b (chain, n) ON b.n = o.n - 1
    WHERE l.row_hash IS DISTINCT FROM o.hash
       OR coalesce(l.store_hash, decode(repeat('00', 32), 'hex')) IS DISTINCT FROM o.store
       OR o.seq <= s.head_seq OR o.chain <= b.chain
    ORDER BY o.n LIMIT 1;
    IF wrong IS NOT NULL OR cardinality(chains) = 0 OR total_rows < newest.total_rows THEN
        RAISE EXCEPTION 'checkpoint % is not of what is stored: %', number, coalesce(wrong, 'its number of leaves or rows')
            USING ERRCODE = 'check_violation';
    END IF;
    digest := sha256('jobtrail-audit-checkpoint-v1'::bytea || '\x00'::bytea || int8send(number) || previous || root
        || int8send(cardinality(chains)) || int8send(total_rows) || int8send(time_us));
    INSERT INTO audit_checkpoint VALUES (number, previous, root, cardinality(chains), total_rows,
        'epoch'::timestamptz + time_us * interval '1 microsecond', digest, signature, key_id);
    INSERT INTO audit_checkpoint_leaf
    SELECT jobtrail_seal.number, o.n - 1, o.chain, o.seq, o.hash, o.store
    FROM unnest(chains, seqs, hashes, store_hashes) WITH ORDINALITY AS o (chain, seq, hash, store, n);
    INSERT INTO audit_seal AS s
    SELECT o.chain, jobtrail_seal.number, o.n - 1, o.seq, o.hash, o.store, o.path
    FROM unnest(chains, seqs, hashes, store_hashes, paths) WITH ORDINALITY AS o (chain, seq, hash, store, path, n)
    ON CONFLICT (chain_id) DO UPDATE SET number = excluded.number, position = excluded.position,
        head_seq = excluded.head_seq, head_hash = excluded.head_hash, store_hash = excluded.store_hash, path = excluded.path;
    RETURN true;
END
$body$;
COMMENT ON FUNCTION jobtrail_seal IS 'Keeps a checkpoint over the heads of chains as they are stored; false where another sealer was first.';
