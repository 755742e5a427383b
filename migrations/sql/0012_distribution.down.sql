-- Tables that lie on workers stay there: bringing them back is `undistribute_table`, a decision of its own.
DROP FUNCTION jobtrail_distribute();
CREATE OR REPLACE FUNCTION jobtrail_guard_payload_partition(partition_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    EXECUTE format('CREATE TRIGGER audit_payload_no_truncate BEFORE TRUNCATE ON public.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION public.jobtrail_refuse_change()', partition_name);
    EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER audit_payload_no_truncate', partition_name);
    EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER audit_payload_append_only', partition_name);
END
$body$;
