-- What the specs of this directory call, in a schema of its own. Each permutation has a chain of its own: the trail keeps
-- what it holds, so that none could be begun anew. The rows are made by the test, as a node's spool makes them.
CREATE SCHEMA iso;
CREATE TABLE iso.turn (number integer NOT NULL, base integer NOT NULL, last integer NOT NULL);
CREATE TABLE iso.offered (
    turn integer, variant text, chain uuid, node text, seq bigint, event_id uuid, kind text, time_us bigint,
    received_us bigint, payload bytea, salt bytea, prev_hash bytea, commitment bytea, row_hash bytea, changed_by text,
    source text, change_type text, cluster text, job_id text, run integer, about text, correlation uuid, unapplied text,
    request_id uuid, snapshot jsonb, person text, sent_by text, PRIMARY KEY (turn, variant, seq)
);
CREATE TABLE iso.seen (
    sealer text PRIMARY KEY, number bigint, previous bytea, leaf_seq bigint, hash bytea, store bytea, total bigint, moved boolean
);

-- Offer rows of this permutation's chain. Where `first` is after `last`, only lock it, as the sink does before all else.
CREATE FUNCTION iso.offer(variant text, first bigint, last bigint) RETURNS text LANGUAGE sql AS $body$
    SELECT format('head %s stored %s replayed %s conflicts %s', i.head_seq, i.stored, i.replayed, cardinality(i.conflicts))
    FROM (
        SELECT (array_agg(o.chain))[1] AS chain, (array_agg(o.node))[1] AS node FROM iso.offered o, iso.turn t
        WHERE o.turn = t.number
    ) w, LATERAL (
        SELECT array_agg(o.seq ORDER BY o.seq) AS seqs, array_agg(o.event_id ORDER BY o.seq) AS event_ids,
            array_agg(o.kind ORDER BY o.seq) AS kinds, array_agg(o.time_us ORDER BY o.seq) AS times,
            array_agg(o.received_us ORDER BY o.seq) AS received, array_agg(o.payload ORDER BY o.seq) AS payloads,
            array_agg(o.salt ORDER BY o.seq) AS salts, array_agg(o.prev_hash ORDER BY o.seq) AS prevs,
            array_agg(o.commitment ORDER BY o.seq) AS commitments, array_agg(o.row_hash ORDER BY o.seq) AS hashes,
            array_agg(o.changed_by ORDER BY o.seq) AS bys, array_agg(o.source ORDER BY o.seq) AS sources,
            array_agg(o.change_type ORDER BY o.seq) AS changes, array_agg(o.cluster ORDER BY o.seq) AS clusters,
            array_agg(o.job_id ORDER BY o.seq) AS jobs, array_agg(o.run ORDER BY o.seq) AS runs,
            array_agg(o.about ORDER BY o.seq) AS nodes, array_agg(o.correlation ORDER BY o.seq) AS correlations,
            array_agg(o.unapplied ORDER BY o.seq) AS unapplieds, array_agg(o.request_id ORDER BY o.seq) AS requests,
            array_agg(o.snapshot ORDER BY o.seq) AS snapshots, array_agg(o.person ORDER BY o.seq) AS persons,
            array_agg(o.sent_by ORDER BY o.seq) AS sent_bys
        FROM iso.offered o, iso.turn t
        WHERE o.turn = t.number AND o.variant = offer.variant AND o.seq BETWEEN offer.first AND offer.last
    ) r, jobtrail_ingest(w.chain, w.node, coalesce(r.seqs, '{}'), coalesce(r.event_ids, '{}'), coalesce(r.kinds, '{}'),
        coalesce(r.times, '{}'), coalesce(r.received, '{}'), coalesce(r.payloads, '{}'), coalesce(r.salts, '{}'),
        coalesce(r.prevs, '{}'), coalesce(r.commitments, '{}'), coalesce(r.hashes, '{}'), coalesce(r.bys, '{}'),
        coalesce(r.sources, '{}'), coalesce(r.changes, '{}'), coalesce(r.clusters, '{}'), coalesce(r.jobs, '{}'),
        coalesce(r.runs, '{}'), coalesce(r.nodes, '{}'), coalesce(r.correlations, '{}'), coalesce(r.unapplieds, '{}'),
        coalesce(r.requests, '{}'), coalesce(r.snapshots, '{}'), coalesce(r.persons, '{}'), coalesce(r.sent_bys, '{}')) i
$body$;

-- What a sealer recomputed on a snapshot of its own: the head of this permutation's chain and the newest checkpoint.
CREATE FUNCTION iso.look(sealer text) RETURNS text LANGUAGE sql AS $body$
    INSERT INTO iso.seen
    SELECT look.sealer, coalesce(n.number, 0) + 1, coalesce(n.digest, decode(repeat('00', 32), 'hex')), c.head_seq,
           c.head_hash, c.store_hash, coalesce(n.total_rows, 0) + c.head_seq - coalesce(s.head_seq, 0),
           c.head_seq > coalesce(s.head_seq, 0)
    FROM audit_chain c
    LEFT JOIN audit_seal s ON s.chain_id = c.chain_id
    LEFT JOIN LATERAL (SELECT p.* FROM audit_checkpoint p ORDER BY p.number DESC LIMIT 1) n ON true
    WHERE c.chain_id = (SELECT o.chain FROM iso.offered o, iso.turn t WHERE o.turn = t.number LIMIT 1)
    ON CONFLICT (sealer) DO UPDATE SET (number, previous, leaf_seq, hash, store, total, moved) = (excluded.number,
        excluded.previous, excluded.leaf_seq, excluded.hash, excluded.store, excluded.total, excluded.moved)
    RETURNING format('up to %s', leaf_seq)
$body$;

-- A checkpoint over what the sealer saw, if there was anything new; with one leaf the root is that leaf's hash (RFC 9162, 2.1.1).
CREATE FUNCTION iso.keep(sealer text) RETURNS boolean LANGUAGE sql AS $body$
    SELECT jobtrail_seal(s.number, s.previous,
        sha256('\x00'::bytea || 'jobtrail-audit-leaf-v1'::bytea || '\x00'::bytea || uuid_send(c.chain) || int8send(s.leaf_seq)
               || s.hash || s.store),
        s.total, 1760000000000000 + s.number, NULL, NULL, ARRAY[c.chain], ARRAY[s.leaf_seq], ARRAY[s.hash], ARRAY[s.store],
        ARRAY['\x'::bytea])
    FROM iso.seen s, (SELECT o.chain FROM iso.offered o, iso.turn t WHERE o.turn = t.number LIMIT 1) c
    WHERE s.sealer = keep.sealer AND s.moved
$body$;

CREATE FUNCTION iso.prune() RETURNS text LANGUAGE sql AS $body$
    SELECT format('rows %s payloads %s', p.log_rows, p.payloads)
    FROM (SELECT c.number, c.digest FROM audit_checkpoint c ORDER BY c.number DESC LIMIT 1) n,
         jobtrail_prune((SELECT jobtrail_time_of(o.received_us) FROM iso.offered o, iso.turn t
                         WHERE o.turn = t.number AND o.variant = 'mine' AND o.seq = t.base),
                        'retention', 'officer', n.number, n.digest, false) p
$body$;

-- The beginning of a permutation: the first rows of a new chain, stored and sealed.
CREATE FUNCTION iso.begin() RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    UPDATE iso.turn SET number = number + 1;
    PERFORM iso.offer('mine', 1, t.base) FROM iso.turn t;
    PERFORM iso.look('first');
    PERFORM iso.keep('first');
END
$body$;

-- Its end: whoever did not get to store rows comes again, as a node does; then the chain is whole, and all of it is sealed.
CREATE FUNCTION iso.finish(variant text) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
    held record;
    wrong bigint;
BEGIN
    PERFORM iso.offer(variant, t.base + 1, t.last) FROM iso.turn t;
    SELECT c.* INTO held FROM audit_chain c
    WHERE c.chain_id = (SELECT o.chain FROM iso.offered o, iso.turn t WHERE o.turn = t.number LIMIT 1);
    IF held.head_seq <> (SELECT t.last FROM iso.turn t) THEN
        RAISE EXCEPTION 'the chain ends at %', held.head_seq;
    END IF;
    SELECT count(*) INTO wrong FROM (
        SELECT l.prev_hash, l.seq, lag(l.row_hash) OVER w AS before, lag(l.seq) OVER w AS before_seq, count(*) OVER () AS n
        FROM audit_log l WHERE l.chain_id = held.chain_id WINDOW w AS (ORDER BY l.seq)
    ) r WHERE r.prev_hash <> r.before OR r.seq <> r.before_seq + 1 OR r.n <> held.head_seq - held.pruned_seq;
    IF wrong > 0 THEN
        RAISE EXCEPTION '% rows do not follow the row before', wrong;
    END IF;
    PERFORM iso.look('last');
    PERFORM iso.keep('last');
END
$body$;
