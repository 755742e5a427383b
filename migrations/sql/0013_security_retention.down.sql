-- Security events stay until an administrator deletes them.
CREATE OR REPLACE FUNCTION jobtrail_apply_grants() RETURNS void
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
DROP FUNCTION jobtrail_prune_security(integer);
DROP INDEX security_log_stored_at_idx;
