-- Take a lock until the end of the transaction, if nobody has it. $1 key
SELECT pg_try_advisory_xact_lock($1::bigint)
