-- Where PostgreSQL has the extension citus, the tables that grow with jobs and events lie on its workers; else nothing
-- changes. A table has one distribution column, and every unique key has to hold it: what is about jobs goes by job_id
-- (one cluster's name would put everything into one place), the trail by chain_id, readings of GPUs, which may have no
-- job, by node. All other tables stay on the coordinator.
CREATE FUNCTION jobtrail_distribute() RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    place text;  -- of the extension's functions
    plan constant text[] := ARRAY[
        -- table, distribution column, the table whose rows of the same value lie beside
        ARRAY['jobs', 'job_id', 'none'],
        ARRAY['jobs_withdrawn', 'job_id', 'jobs'],
        ARRAY['job_nodes', 'job_id', 'jobs'],
        ARRAY['job_gpus', 'job_id', 'jobs'],
        ARRAY['job_samples', 'job_id', 'jobs'],
        ARRAY['energy_samples', 'job_id', 'jobs'],
        ARRAY['gpu_samples', 'node', 'none'],
        ARRAY['audit_chain', 'chain_id', 'none'],
        ARRAY['audit_log', 'chain_id', 'audit_chain'],
        ARRAY['audit_payload', 'chain_id', 'audit_chain'],
        ARRAY['audit_conflict', 'chain_id', 'audit_chain']
    ];
    entry text[];
    already boolean;
    guard record;
    done text[] := '{}';
BEGIN
    SELECT quote_ident(n.nspname) INTO place FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_proc'::regclass
    JOIN pg_proc p ON p.oid = d.objid AND p.proname = 'create_distributed_table'
    JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE e.extname = 'citus' LIMIT 1;
    IF place IS NULL THEN
        RETURN done;
    END IF;
    -- Triggers on the workers look at a row alone, and refuse.
    PERFORM set_config('citus.enable_unsafe_triggers', 'on', true);
    -- Shards are made one after another: within a transaction, statements that come later must see them.
    PERFORM set_config('citus.multi_shard_modify_mode', 'sequential', true);
    FOREACH entry SLICE 1 IN ARRAY plan LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = $1::regclass)'
            INTO already USING 'public.' || entry[1];
        CONTINUE WHEN already;
        -- Statement triggers cannot be on distributed tables: there, TRUNCATE is refused by privileges alone.
        FOR guard IN
            SELECT t.tgname, t.tgrelid::regclass AS on_table FROM pg_trigger t
            WHERE NOT t.tgisinternal AND t.tgtype & 1 = 0
              AND (t.tgrelid = ('public.' || entry[1])::regclass
                   OR t.tgrelid IN (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = ('public.' || entry[1])::regclass))
        LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', guard.tgname, guard.on_table);
        END LOOP;
        EXECUTE format('SELECT %s.create_distributed_table(%L, %L, colocate_with => %L)', place, 'public.' || entry[1],
                       entry[2], CASE entry[3] WHEN 'none' THEN 'none' ELSE 'public.' || entry[3] END);
        done := done || entry[1];
    END LOOP;
    RETURN done;
END
$body$;
COMMENT ON FUNCTION jobtrail_distribute IS 'With the extension citus: puts the large tables on its workers, those that are not there yet; their names. Without it: nothing.';

-- As before, but where the extension citus has the table: there no trigger of statements can be made.
CREATE OR REPLACE FUNCTION jobtrail_guard_payload_partition(partition_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN
        EXECUTE format('CREATE TRIGGER audit_payload_no_truncate BEFORE TRUNCATE ON public.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION public.jobtrail_refuse_change()', partition_name);
        EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER audit_payload_no_truncate', partition_name);
    END IF;
    EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER audit_payload_append_only', partition_name);
END
$body$;

SELECT jobtrail_distribute();
SELECT jobtrail_apply_grants();
