-- Tokens by which servers know the nodes that forward to them, and who was turned away.
CREATE TABLE node_tokens (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    node text NOT NULL CHECK (node ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires_at timestamptz CHECK (expires_at > created_at),
    revoked_at timestamptz,
    revoked_by text,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX node_tokens_node_idx ON node_tokens (node);
COMMENT ON TABLE node_tokens IS 'SHA-256 of the random token by which a node is known. The token itself is with the node alone.';

CREATE FUNCTION jobtrail_add_node_token(of_node text, of_digest bytea, until timestamptz, actor text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('jobtrail node token ' || of_node, 0));
    IF (SELECT count(*) FROM public.node_tokens t
        WHERE t.node = of_node AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())) >= 2 THEN
        RAISE EXCEPTION 'node % has two valid tokens, which is all that a change needs; revoke one first', of_node
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    INSERT INTO public.node_tokens (digest, node, expires_at, created_by) VALUES (of_digest, of_node, until, actor);
END
$body$;
COMMENT ON FUNCTION jobtrail_add_node_token IS 'Makes a node known by one more token; two may be valid at once.';

CREATE TABLE security_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    what text NOT NULL,
    who text NOT NULL,
    peer text NOT NULL,
    detail text NOT NULL,
    reporter text NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL CHECK (last_at >= first_at),
    times bigint NOT NULL CHECK (times > 0),
    stored_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX security_log_last_at_idx ON security_log (last_at);
COMMENT ON TABLE security_log IS 'Who was turned away and should not have come. The same within a minute is one row.';

CREATE VIEW security_events AS
SELECT last_at, what, nullif(who, '') AS who, peer, times, first_at, detail, reporter FROM security_log;
COMMENT ON VIEW security_events IS 'Who was turned away: what, under which name, where from, how often, and which daemon says so.';

ALTER FUNCTION jobtrail_apply_grants() RENAME TO jobtrail_apply_trail_grants;
CREATE FUNCTION jobtrail_apply_grants() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    PERFORM public.jobtrail_apply_trail_grants();
    REVOKE ALL ON FUNCTION public.jobtrail_apply_grants(), public.jobtrail_apply_trail_grants(),
        public.jobtrail_add_node_token(text, bytea, timestamptz, text) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_ingest') THEN
        -- A daemon checks tokens and cannot make any; what it noticed it can add and never change.
        GRANT SELECT ON public.node_tokens, public.security_log, public.security_events TO jobtrail_ingest;
        GRANT INSERT ON public.security_log TO jobtrail_ingest;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_auditor') THEN
        GRANT SELECT ON public.security_log, public.security_events TO jobtrail_auditor;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_owner')
       AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        ALTER TABLE public.node_tokens OWNER TO jobtrail_owner;
        ALTER TABLE public.security_log OWNER TO jobtrail_owner;
        ALTER VIEW public.security_events OWNER TO jobtrail_owner;
    END IF;
END
$body$;
COMMENT ON FUNCTION jobtrail_apply_grants IS 'Gives each role what it may do; to be called again when roles were made later.';
SELECT jobtrail_apply_grants();
