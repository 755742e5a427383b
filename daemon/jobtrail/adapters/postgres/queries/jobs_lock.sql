-- Lock jobs against other writers until the end of the transaction, in the order given. $1 lock class, $2 sorted lock numbers
SELECT count(pg_advisory_xact_lock($1::integer, number)) FROM unnest($2::integer[]) AS number
