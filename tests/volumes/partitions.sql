-- The partitions of a year of trail and of a week of samples, as the daemons would have made them day by day.
DO $body$
DECLARE
    begun date;
    parent text;
BEGIN
    FOR begun IN SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date - n * interval '1 month' FROM generate_series(1, 13) AS n LOOP
        EXECUTE format('CREATE TABLE audit_payload_%s PARTITION OF audit_payload FOR VALUES FROM (%L) TO (%L)',
                       to_char(begun, 'YYYYMM'), begun || ' 00:00:00+00', (begun + interval '1 month')::date || ' 00:00:00+00');
        PERFORM jobtrail_guard_payload_partition('audit_payload_' || to_char(begun, 'YYYYMM'));
    END LOOP;
    FOREACH parent IN ARRAY ARRAY['job_samples', 'gpu_samples', 'energy_samples'] LOOP
        FOR begun IN SELECT (now() AT TIME ZONE 'UTC')::date - n FROM generate_series(2, 8) AS n LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', parent || '_' || to_char(begun, 'YYYYMMDD'),
                           parent, begun || ' 00:00:00+00', begun + 1 || ' 00:00:00+00');
        END LOOP;
    END LOOP;
END
$body$;
