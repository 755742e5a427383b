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
COMMENT ON COLUMN audit_log.snapshot_commitment IS 'SHA-256 over salt, job_snapshot as text, person and sent_by; NULL in rows stored before this was kept.';
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

-- No temporary table: that right is often taken from everybody.
CREATE TABLE audit_removing (
    chain_id uuid NOT NULL,
    seq bigint NOT NULL,
    received_at timestamptz,
    cluster_name text,
    job_id text,
    run integer,
    node text,
    first bigint,
    PRIMARY KEY (chain_id, seq)
);
COMMENT ON TABLE audit_removing IS 'Empty but within jobtrail_erase and jobtrail_prune: what they are about to remove.';

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
LANGUAGE sql STABLE AS $body$
    SELECT pg_catalog.sha256('jobtrail-audit-row-v1'::bytea || '\x00'::bytea || uuid_send(chain) || int8send(seq)
        || prev_hash || int8send(time_us) || substring(int4send(octet_length(convert_to(kind, 'UTF8'))) FROM 3)
        || convert_to(kind, 'UTF8') || uuid_send(event_id) || commitment)
$body$;
COMMENT ON FUNCTION jobtrail_row_hash IS 'The hash of a row of the trail as its writer makes it.';

CREATE FUNCTION jobtrail_field(value text) RETURNS bytea
LANGUAGE sql STABLE AS $body$
    SELECT CASE WHEN value IS NULL THEN '\xffffffff'::bytea
                ELSE int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') END
$body$;
COMMENT ON FUNCTION jobtrail_field IS 'A text within a hash: its length and its bytes; another mark for NULL.';

CREATE FUNCTION jobtrail_time_us(moment timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $body$
    SELECT (extract(epoch FROM moment) * 1000000)::bigint
$body$;
COMMENT ON FUNCTION jobtrail_time_us IS 'Microseconds since 1970.';

-- In two parts: an interval is multiplied in floating point, and microseconds beyond the year 2255 do not fit into that.
CREATE FUNCTION jobtrail_time_of(time_us bigint) RETURNS timestamptz
LANGUAGE sql STABLE AS $body$
    SELECT 'epoch'::timestamptz + (time_us / 1000000) * interval '1 second' + (time_us % 1000000) * interval '1 microsecond'
$body$;
COMMENT ON FUNCTION jobtrail_time_of IS 'The time that many microseconds after 1970, exact.';

CREATE FUNCTION jobtrail_ingest(
    chain uuid, writer text, seqs bigint[], event_ids uuid[], kinds text[], times_us bigint[], received_us bigint[],
    payloads bytea[], salts bytea[], prev_hashes bytea[], commitments bytea[], row_hashes bytea[],
    changed_bys text[], sources text[], change_types text[], clusters text[], job_ids text[], runs integer[],
    nodes text[], correlations uuid[], unapplieds text[], request_ids uuid[], snapshots jsonb[], persons text[], sent_bys text[],
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
    -- Counted from 1, as what follows counts; else a caller could have the head of a chain moved to where no row is.
    IF 1 <> ANY (ARRAY[array_ndims(seqs), array_ndims(row_hashes), array_ndims(payloads), array_lower(seqs, 1),
                       array_lower(row_hashes, 1), array_lower(payloads, 1)]) THEN
        RAISE EXCEPTION 'rows are given as lists that begin at 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Rows of the database's own chain say what was removed. Nobody else says so, and no kind is longer than its hash can hold.
    IF EXISTS (SELECT FROM unnest(nodes) AS o (node) WHERE left(o.node, 1) = '@')
       OR EXISTS (SELECT FROM unnest(kinds) AS o (kind) WHERE octet_length(convert_to(o.kind, 'UTF8')) > 65535) THEN
        RAISE EXCEPTION 'no node has a name that begins with @, and no kind more than 65535 bytes'
            USING ERRCODE = 'invalid_parameter_value';
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
                      || jobtrail_field(o.snapshot::text) || jobtrail_field(o.person) || jobtrail_field(o.sent_by)) AS shot,
               int8send(o.received_us) || int8send(jobtrail_time_us(stored_at)) || jobtrail_field(o.changed_by)
                   || jobtrail_field(o.source) || jobtrail_field(o.change_type) || jobtrail_field(o.cluster_name)
                   || jobtrail_field(o.job_id) || jobtrail_field(o.run::text) || jobtrail_field(o.node)
                   || jobtrail_field(o.correlation_id::text) || jobtrail_field(o.unapplied)
                   || jobtrail_field(o.request_id::text) AS note
        FROM unnest(row_hashes, salts, received_us, changed_bys, sources, change_types, clusters, job_ids, runs, nodes,
                    correlations, unapplieds, request_ids, snapshots, persons, sent_bys)
            WITH ORDINALITY AS o (row_hash, salt, received_us, changed_by, source, change_type, cluster_name, job_id, run,
                                  node, correlation_id, unapplied, request_id, snapshot, person, sent_by, n)
        WHERE o.n BETWEEN beyond AND last
        ORDER BY o.n
    LOOP
        previous := sha256('jobtrail-audit-store-v1'::bytea || '\x00'::bytea || previous || one.row_hash || one.shot || one.note);
        stores := stores || previous;
        shots := shots || one.shot;
    END LOOP;

    INSERT INTO audit_log (chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at, received_at, stored_at,
                           changed_by, source, change_type, cluster_name, job_id, run, node, correlation_id, unapplied,
                           request_id, snapshot_commitment, store_hash)
    SELECT chain, o.seq, o.event_id, o.kind, o.prev_hash, o.commitment, o.row_hash,
           jobtrail_time_of(o.time_us),
           jobtrail_time_of(o.received_us), stored_at,
           o.changed_by, o.source, o.change_type, o.cluster_name, o.job_id, o.run, o.node, o.correlation_id, o.unapplied,
           o.request_id, h.shot, h.store
    FROM unnest(seqs, event_ids, kinds, prev_hashes, commitments, row_hashes, times_us, received_us, changed_bys, sources,
                change_types, clusters, job_ids, runs, nodes, correlations, unapplieds, request_ids)
        WITH ORDINALITY AS o (seq, event_id, kind, prev_hash, commitment, row_hash, time_us, received_us, changed_by, source,
                              change_type, cluster_name, job_id, run, node, correlation_id, unapplied, request_id, n)
    JOIN unnest(shots, stores) WITH ORDINALITY AS h (shot, store, n) ON h.n = o.n - beyond + 1
    WHERE o.n BETWEEN beyond AND last;

    INSERT INTO audit_payload (chain_id, seq, received_at, payload, salt, job_snapshot, person, sent_by)
    SELECT chain, o.seq, jobtrail_time_of(o.received_us), o.payload, o.salt, o.snapshot,
           o.person, o.sent_by
    FROM unnest(seqs, received_us, payloads, salts, snapshots, persons, sent_bys)
        WITH ORDINALITY AS o (seq, received_us, payload, salt, snapshot, person, sent_by, n)
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
        jobtrail_time_of(time_us), digest, signature, key_id);
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

CREATE FUNCTION jobtrail_note(kind text, detail jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    own record;
    zero constant bytea := decode(repeat('00', 32), 'hex');
    event uuid := gen_random_uuid();
    now_us bigint := jobtrail_time_us(now());
    salt bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    payload bytea;
    commitment bytea;
    row_hash bytea;
    shot bytea;
    store bytea;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(19028, -4);  -- one database, one chain of its own
    SELECT c.* INTO own FROM audit_chain c WHERE c.node = '@store' FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO audit_chain (chain_id, node, head_seq, head_hash) VALUES (gen_random_uuid(), '@store', 0, zero)
            RETURNING * INTO own;
    END IF;
    payload := convert_to((jsonb_build_object(
        'kind', kind, 'event_id', event, 'time_us', now_us, 'cluster', '', 'job_id', NULL, 'node', '@store',
        'changed_by', 'cli', 'source', 'database') || detail)::text, 'UTF8');
    commitment := sha256('jobtrail-audit-payload-v1'::bytea || '\x00'::bytea || salt || payload);
    row_hash := jobtrail_row_hash(own.chain_id, own.head_seq + 1, own.head_hash, now_us, kind, event, commitment);
    shot := sha256('jobtrail-audit-snapshot-v1'::bytea || '\x00'::bytea || salt || jobtrail_field(NULL) || jobtrail_field(NULL)
        || jobtrail_field(NULL));
    store := sha256('jobtrail-audit-store-v1'::bytea || '\x00'::bytea || own.store_hash || row_hash || shot
        || int8send(now_us) || int8send(now_us) || jobtrail_field('cli') || jobtrail_field('database') || jobtrail_field(NULL)
        || jobtrail_field('') || jobtrail_field(NULL) || jobtrail_field(NULL) || jobtrail_field('@store')
        || jobtrail_field(NULL) || jobtrail_field(NULL) || jobtrail_field(NULL));
    INSERT INTO audit_log (chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at, received_at, stored_at,
                           changed_by, source, cluster_name, node, snapshot_commitment, store_hash)
    VALUES (own.chain_id, own.head_seq + 1, event, kind, own.head_hash, commitment, row_hash, now(), now(), now(),
            'cli', 'database', '', '@store', shot, store);
    INSERT INTO audit_payload (chain_id, seq, received_at, payload, salt)
    VALUES (own.chain_id, own.head_seq + 1, now(), payload, salt);
    UPDATE audit_chain c SET head_seq = own.head_seq + 1, head_hash = row_hash, store_hash = store, updated_at = now()
    WHERE c.chain_id = own.chain_id;
    RETURN own.head_seq + 1;
END
$body$;
COMMENT ON FUNCTION jobtrail_note IS 'Appends a row to the database''s own chain (node @store). For the functions that remove or hold.';

CREATE FUNCTION jobtrail_check_removal(basis text, actor text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    hold record;
BEGIN
    IF coalesce(btrim(basis), '') = '' OR coalesce(btrim(actor), '') = '' THEN
        RAISE EXCEPTION 'a removal needs a basis and the name of who orders it' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(19028, -5);  -- one removal at a time, none while a hold is placed
    SELECT h.* INTO hold FROM audit_hold h WHERE h.lifted_at IS NULL ORDER BY h.placed_at LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a legal hold of % is in force (placed by %: %)', hold.placed_at, hold.placed_by, hold.reason
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'jobtrail audit hold --lift ends it';
    END IF;
END
$body$;

CREATE FUNCTION jobtrail_hold(reason text, actor text, lift boolean) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    IF coalesce(btrim(reason), '') = '' OR coalesce(btrim(actor), '') = '' THEN
        RAISE EXCEPTION 'a hold needs a reason and the name of who orders it' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(19028, -5);
    IF lift THEN
        UPDATE audit_hold h SET lifted_at = now(), lifted_by = actor WHERE h.lifted_at IS NULL;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'no legal hold is in force' USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
    ELSE
        INSERT INTO audit_hold (placed_at, placed_by, reason) VALUES (clock_timestamp(), actor, jobtrail_hold.reason);
    END IF;
    RETURN jobtrail_note(CASE WHEN lift THEN 'hold_lifted' ELSE 'hold_placed' END,
                         jsonb_build_object('removal', jsonb_build_object('basis', reason, 'actor', actor,
                                                                          'login', session_user::text)));
END
$body$;
COMMENT ON FUNCTION jobtrail_hold IS 'Places a legal hold, or lifts all; either is a row of the trail.';

CREATE FUNCTION jobtrail_without_person(tree jsonb, person text, pseudonym text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    RETURN CASE jsonb_typeof(tree)
        WHEN 'string' THEN CASE WHEN tree #>> '{}' = person THEN to_jsonb(pseudonym) ELSE tree END
        WHEN 'array' THEN (SELECT coalesce(jsonb_agg(jobtrail_without_person(e.value, person, pseudonym) ORDER BY e.n), '[]')
                           FROM jsonb_array_elements(tree) WITH ORDINALITY AS e (value, n))
        WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(m.key, jobtrail_without_person(m.value, person, pseudonym)), '{}')
                            FROM jsonb_each(tree) AS m
                            WHERE m.key NOT IN ('uid', 'gid', 'job_name', 'comment', 'work_dir', 'command'))
        ELSE tree
    END;
END
$body$;

-- Names of tables are as they are now: what later revisions add about people is to be added here.
CREATE FUNCTION jobtrail_erase(
    who text, basis text, actor text, OUT payloads bigint, OUT runs bigint, OUT noted_seq bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    pseudonym constant text := 'erased-' || left(replace(gen_random_uuid()::text, '-', ''), 12);
    ranges jsonb;
    own uuid;
BEGIN
    IF coalesce(who, '') = '' THEN
        RAISE EXCEPTION 'whose data is to be erased needs a name' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM jobtrail_check_removal(basis, actor);
    IF EXISTS (SELECT FROM jobs j WHERE j.user_name = who AND j.end_time IS NULL AND j.state IN ('pending', 'running')) THEN
        RAISE EXCEPTION 'a run of this user is not over; its next event would name the user again'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT c.chain_id INTO own FROM audit_chain c WHERE c.node = '@store';
    INSERT INTO audit_removing (chain_id, seq, received_at, cluster_name, job_id, run)
    SELECT p.chain_id, p.seq, p.received_at, l.cluster_name, l.job_id, l.run
    FROM audit_payload p
    JOIN audit_log l ON l.chain_id = p.chain_id AND l.seq = p.seq
    WHERE p.chain_id IS DISTINCT FROM own
      AND (EXISTS (SELECT FROM jobs j WHERE j.cluster_name = l.cluster_name AND j.job_id = l.job_id AND j.run = l.run
                     AND j.user_name = who)
           OR p.person = who OR p.sent_by = who
           OR jsonb_path_exists(jobtrail_event_json(p.payload), '$.** ? (@ == $person)', jsonb_build_object('person', who))
           OR jsonb_path_exists(p.job_snapshot, '$.** ? (@ == $person)', jsonb_build_object('person', who)));
    SELECT count(*) INTO payloads FROM audit_removing;
    SELECT coalesce(jsonb_agg(jsonb_build_array(i.chain_id, i.first, i.last) ORDER BY i.chain_id, i.first), '[]') INTO ranges
    FROM (
        SELECT g.chain_id, min(g.seq) AS first, max(g.seq) AS last
        FROM (SELECT e.chain_id, e.seq, e.seq - row_number() OVER (PARTITION BY e.chain_id ORDER BY e.seq) AS island
              FROM audit_removing e) g
        GROUP BY g.chain_id, g.island
    ) i;
    noted_seq := jobtrail_note('payload_erased', jsonb_build_object('removal', jsonb_build_object(
        'basis', basis, 'actor', actor, 'login', session_user::text, 'payloads', payloads, 'ranges', ranges)));

    INSERT INTO audit_permit VALUES (pg_current_xact_id());
    DELETE FROM audit_payload p USING audit_removing e
    WHERE p.chain_id = e.chain_id AND p.seq = e.seq AND p.received_at = e.received_at;
    DELETE FROM audit_conflict c USING audit_removing e WHERE c.chain_id = e.chain_id AND c.seq = e.seq;
    DELETE FROM audit_conflict c
    WHERE jsonb_path_exists(jobtrail_event_json(c.payload), '$.** ? (@ == $person)', jsonb_build_object('person', who));
    DELETE FROM audit_permit;

    INSERT INTO audit_removed_run
    SELECT DISTINCT e.cluster_name, e.job_id, e.run, jobtrail_erase.noted_seq FROM audit_removing e WHERE e.run IS NOT NULL
    ON CONFLICT (cluster_name, job_id, run) DO NOTHING;
    UPDATE job_nodes n SET projection = jobtrail_without_person(n.projection, who, pseudonym)
    FROM jobs j
    WHERE n.cluster_name = j.cluster_name AND n.job_id = j.job_id AND n.run = j.run AND j.user_name = who;
    UPDATE jobs j SET user_name = pseudonym, uid = NULL, gid = NULL, job_name = NULL, comment = NULL, work_dir = NULL,
        command = NULL, projection = jobtrail_without_person(j.projection, who, pseudonym)
    WHERE j.user_name = who;
    GET DIAGNOSTICS runs = ROW_COUNT;
    UPDATE jobs_withdrawn w SET user_name = CASE WHEN w.user_name = who THEN pseudonym ELSE w.user_name END,
        withdrawn_by = CASE WHEN w.withdrawn_by = who THEN pseudonym ELSE w.withdrawn_by END,
        sent_by = CASE WHEN w.sent_by = who THEN pseudonym ELSE w.sent_by END, uid = NULL,
        job = jobtrail_without_person(w.job, who, pseudonym),
        projection = jobtrail_without_person(w.projection, who, pseudonym)
    WHERE who IN (w.user_name, w.withdrawn_by, w.sent_by);
    UPDATE benchmark_run b SET user_name = pseudonym, uid = NULL WHERE b.user_name = who;
    UPDATE benchmark_decision d SET decided_by = pseudonym WHERE d.decided_by = who;
    IF to_regclass('public.security_log') IS NOT NULL THEN  -- of a later revision
        UPDATE security_log s SET who = pseudonym, detail = '' WHERE s.who = jobtrail_erase.who;
        UPDATE node_tokens t SET created_by = CASE WHEN t.created_by = jobtrail_erase.who THEN pseudonym ELSE t.created_by END,
            revoked_by = CASE WHEN t.revoked_by = jobtrail_erase.who THEN pseudonym ELSE t.revoked_by END
        WHERE jobtrail_erase.who IN (t.created_by, t.revoked_by);
    END IF;
    DELETE FROM audit_removing;
END
$body$;
COMMENT ON FUNCTION jobtrail_erase IS 'Erases a user''s payloads with their salts, gives the user''s rows a pseudonym, and notes what was erased in the trail.';

CREATE FUNCTION jobtrail_prune(
    before timestamptz, basis text, actor text, anchor_number bigint, anchor_digest bytea, payloads_only boolean,
    OUT log_rows bigint, OUT payloads bigint, OUT noted_seq bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '5s' AS $body$
DECLARE
    uncovered record;
    bounds jsonb;
    child text;
    still boolean;
BEGIN
    PERFORM jobtrail_check_removal(basis, actor);
    IF before IS NULL OR before > now() THEN
        RAISE EXCEPTION 'only what is past can be pruned, not %', before USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM audit_checkpoint c WHERE c.number = anchor_number AND c.digest = anchor_digest;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'checkpoint % is not held here as the anchor has it', anchor_number
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- Of each chain what lies before its first row that is to stay; the last row stays always.
    INSERT INTO audit_removing (chain_id, node, first, seq)
    SELECT * FROM (
        SELECT c.chain_id, c.node, c.pruned_seq + 1 AS first,
               least(c.head_seq - 1,
                     coalesce((SELECT min(l.seq) FROM audit_log l WHERE l.chain_id = c.chain_id AND l.received_at >= before) - 1,
                              c.head_seq)) AS last
        FROM audit_chain c WHERE c.node <> '@store'
    ) of_chain
    WHERE of_chain.last >= of_chain.first;
    SELECT p.* INTO uncovered FROM audit_removing p
    WHERE NOT EXISTS (SELECT FROM audit_checkpoint_leaf f
                      WHERE f.chain_id = p.chain_id AND f.head_seq >= p.seq AND f.number <= anchor_number)
    ORDER BY p.node LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'chain % of node % is not covered up to sequence % by checkpoint %', uncovered.chain_id,
            uncovered.node, uncovered.seq, anchor_number USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT coalesce(jsonb_agg(jsonb_build_array(p.chain_id, p.first, p.seq, encode(l.row_hash, 'hex'),
                                                encode(coalesce(l.store_hash, decode(repeat('00', 32), 'hex')), 'hex'))
                              ORDER BY p.chain_id), '[]') INTO bounds
    FROM audit_removing p JOIN audit_log l ON l.chain_id = p.chain_id AND l.seq = p.seq;
    noted_seq := jobtrail_note(CASE WHEN payloads_only THEN 'payload_pruned' ELSE 'trail_pruned' END,
        jsonb_build_object('removal', jsonb_build_object(
            'basis', basis, 'actor', actor, 'login', session_user::text, 'before_us', jobtrail_time_us(before),
            'anchor_number', anchor_number, 'ranges', bounds)));

    INSERT INTO audit_removed_run
    SELECT DISTINCT l.cluster_name, l.job_id, l.run, jobtrail_prune.noted_seq
    FROM audit_log l JOIN audit_removing p ON p.chain_id = l.chain_id AND l.seq <= p.seq
    WHERE l.run IS NOT NULL
    ON CONFLICT (cluster_name, job_id, run) DO NOTHING;
    INSERT INTO audit_permit VALUES (pg_current_xact_id());
    DELETE FROM audit_payload d USING audit_removing p WHERE d.chain_id = p.chain_id AND d.seq <= p.seq;
    GET DIAGNOSTICS payloads = ROW_COUNT;
    log_rows := 0;
    IF NOT payloads_only THEN
        DELETE FROM audit_log d USING audit_removing p WHERE d.chain_id = p.chain_id AND d.seq <= p.seq;
        GET DIAGNOSTICS log_rows = ROW_COUNT;
        UPDATE audit_chain c SET pruned_seq = p.seq FROM audit_removing p WHERE c.chain_id = p.chain_id;
    END IF;
    DELETE FROM audit_permit;
    DELETE FROM audit_removing;
    FOR child IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.audit_payload'::regclass AND c.relname ~ '^audit_payload_[0-9]{6}$'
          AND to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' <= before
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', child) INTO still;
        IF NOT still THEN
            BEGIN
                EXECUTE format('DROP TABLE public.%I', child);
            EXCEPTION WHEN lock_not_available THEN
                NULL;  -- somebody verifies, or dumps; the next time it is empty still
            END;
        END IF;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION jobtrail_prune IS 'Removes what was received before a time and lies under an anchored checkpoint, and notes where each chain begins now.';

CREATE OR REPLACE FUNCTION jobtrail_apply_grants() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    object record;
BEGIN
    -- Before PostgreSQL 15 everybody may create in this schema, and in databases that come from there; what a login
    -- creates there, with an operator's name and better fitting types, would run within the functions of the owner.
    IF EXISTS (SELECT FROM pg_namespace n, aclexplode(n.nspacl) a
               WHERE n.oid = 'public'::regnamespace AND a.grantee = 0 AND a.privilege_type = 'CREATE') THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    END IF;
    FOR object IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND p.proname ~ '^jobtrail_'
          AND p.prorettype <> 'trigger'::regtype
          AND p.proname <> 'jobtrail_event_json'  -- the views call it with the rights of who reads them
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', object.name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_ingest') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_ingest;
        GRANT SELECT, INSERT, UPDATE ON public.jobs, public.job_nodes, public.job_gpus TO jobtrail_ingest;
        -- Into the trail there is one way. The salts are for those who verify.
        REVOKE INSERT, UPDATE ON public.audit_chain, public.audit_log, public.audit_payload, public.audit_conflict
            FROM jobtrail_ingest;
        REVOKE SELECT ON public.audit_payload FROM jobtrail_ingest;
        GRANT SELECT ON public.audit_chain, public.audit_log, public.audit_conflict, public.audit_checkpoint,
            public.audit_checkpoint_leaf, public.audit_seal, public.audit_verification, public.audit_removed_run
            TO jobtrail_ingest;
        GRANT SELECT (chain_id, seq, received_at, payload, job_snapshot, person, sent_by) ON public.audit_payload
            TO jobtrail_ingest;
        GRANT EXECUTE ON FUNCTION public.jobtrail_ingest(uuid, text, bigint[], uuid[], text[], bigint[], bigint[], bytea[],
            bytea[], bytea[], bytea[], bytea[], text[], text[], text[], text[], text[], integer[], text[], uuid[], text[],
            uuid[], jsonb[], text[], text[]) TO jobtrail_ingest;
        -- A node that Slurm no longer has goes away; of jobs nothing is ever deleted by a daemon.
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.nodes TO jobtrail_ingest;
        -- A manual job that is withdrawn moves, and only through this function.
        GRANT SELECT ON public.jobs_withdrawn TO jobtrail_ingest;
        GRANT EXECUTE ON FUNCTION public.jobtrail_withdraw_jobs(jsonb) TO jobtrail_ingest;
        GRANT SELECT, INSERT ON public.job_samples, public.gpu_samples,
            public.energy_samples, public.benchmark_decision TO jobtrail_ingest;
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
            public.gpu_samples, public.energy_samples, public.audit_chain, public.audit_log, public.audit_checkpoint,
            public.audit_checkpoint_leaf, public.audit_verification, public.job_audit_events, public.job_efficiency, public.job_energy, public.benchmark_metric_def,
            public.benchmark_recipe, public.benchmark_run, public.benchmark_run_job, public.benchmark_metric,
            public.benchmark_energy, public.benchmark_verdict, public.benchmark_decision,
            public.benchmark_reference, public.benchmark_run_summary, public.alembic_version TO jobtrail_reader;
        -- Not the salt: with it, an erased payload could be guessed from its commitment.
        GRANT SELECT (chain_id, seq, received_at, payload, job_snapshot, person, sent_by) ON public.audit_payload TO jobtrail_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_auditor') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_auditor;
        GRANT SELECT ON public.audit_chain, public.audit_log, public.audit_payload, public.audit_conflict,
            public.audit_checkpoint, public.audit_checkpoint_leaf, public.audit_seal, public.audit_verification,
            public.audit_hold, public.audit_removed_run, public.jobs_withdrawn, public.job_audit_events,
            public.alembic_version TO jobtrail_auditor;
    END IF;
    -- The servers' login has this beside jobtrail_ingest; nodes need it where they are no servers at all.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_sealer') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_sealer;
        GRANT SELECT ON public.audit_chain, public.audit_log, public.audit_payload, public.audit_checkpoint,
            public.audit_checkpoint_leaf, public.audit_seal, public.alembic_version TO jobtrail_sealer;
        GRANT SELECT, INSERT, UPDATE ON public.audit_verification TO jobtrail_sealer;
        GRANT EXECUTE ON FUNCTION public.jobtrail_seal(bigint, bytea, bytea, bigint, bigint, bytea, text, uuid[], bigint[],
            bytea[], bytea[], bytea[]) TO jobtrail_sealer;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_retention') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_retention;
        GRANT SELECT ON public.audit_checkpoint, public.audit_hold, public.alembic_version TO jobtrail_retention;
        GRANT EXECUTE ON FUNCTION public.jobtrail_prune(timestamptz, text, text, bigint, bytea, boolean),
            public.jobtrail_hold(text, text, boolean) TO jobtrail_retention;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_erase') THEN
        GRANT USAGE ON SCHEMA public TO jobtrail_erase;
        GRANT SELECT ON public.audit_hold, public.alembic_version TO jobtrail_erase;
        GRANT EXECUTE ON FUNCTION public.jobtrail_erase(text, text, text) TO jobtrail_erase;
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
