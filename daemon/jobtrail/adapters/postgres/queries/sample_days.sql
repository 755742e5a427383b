-- The days (UTC) for which samples can be stored. $1 table
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass AND c.relname ~ '^(job|gpu|energy)_samples_[0-9]{8}$'
