-- The record of who was turned away has an end: rows go when they are older than the servers are told to keep them.
CREATE INDEX security_log_stored_at_idx ON security_log (stored_at);

CREATE FUNCTION jobtrail_prune_security(keep_days integer, OUT removed integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    -- Whoever took over a server could otherwise remove at once what shows how.
    IF keep_days IS NULL OR keep_days < 7 THEN
        RAISE EXCEPTION 'security events are kept for 7 days at least' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    removed := 0;
    -- The same lock as of a hold: none is placed in between.
    PERFORM pg_advisory_xact_lock(19028, -5);
    IF EXISTS (SELECT FROM public.audit_hold h WHERE h.lifted_at IS NULL) THEN
        RETURN;
    END IF;
    -- By the database's clock: that of the daemon which noticed may have been wrong. So many at a time that none waits long.
    DELETE FROM public.security_log WHERE id IN (
        SELECT l.id FROM public.security_log l WHERE l.stored_at < now() - make_interval(days => keep_days)
        ORDER BY l.stored_at LIMIT 10000);
    GET DIAGNOSTICS removed = ROW_COUNT;
END
$body$;
COMMENT ON FUNCTION jobtrail_prune_security IS 'Removes security events that are older, up to 10000; how many. None while a legal hold is in force.';

CREATE OR REPLACE FUNCTION jobtrail_apply_grants() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    PERFORM public.jobtrail_apply_trail_grants();
    REVOKE ALL ON FUNCTION public.jobtrail_apply_grants(), public.jobtrail_apply_trail_grants(),
        public.jobtrail_add_node_token(text, bytea, timestamptz, text), public.jobtrail_prune_security(integer) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_ingest') THEN
        -- A daemon checks tokens and cannot make any; what it noticed it can add and never change.
        GRANT SELECT ON public.node_tokens, public.security_log, public.security_events TO jobtrail_ingest;
        GRANT INSERT ON public.security_log TO jobtrail_ingest;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_auditor') THEN
        GRANT SELECT ON public.security_log, public.security_events TO jobtrail_auditor;
    END IF;
    -- Servers have this role beside the other: a node's login can add to the record and remove nothing from it.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_sealer') THEN
        GRANT EXECUTE ON FUNCTION public.jobtrail_prune_security(integer) TO jobtrail_sealer;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobtrail_owner')
       AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        ALTER TABLE public.node_tokens OWNER TO jobtrail_owner;
        ALTER TABLE public.security_log OWNER TO jobtrail_owner;
        ALTER VIEW public.security_events OWNER TO jobtrail_owner;
        ALTER FUNCTION public.jobtrail_prune_security(integer) OWNER TO jobtrail_owner;
    END IF;
END
$body$;
SELECT jobtrail_apply_grants();
