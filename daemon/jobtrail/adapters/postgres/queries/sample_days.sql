-- The days (UTC) for which samples can be stored.
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'job_samples'::regclass AND c.relname ~ '^job_samples_[0-9]{8}$'
