-- Remove security events older than $1 days, some at a time; how many
SELECT jobtrail_prune_security($1::integer)
