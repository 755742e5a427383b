-- How many runs there are of some kind. $1 state, $2 user, $3 account, $4 partition, $5 node, $6 since, $7 until, $8 cluster, $9 uid; NULL is any
SELECT count(*) AS jobs FROM jobs
WHERE ($1::text IS NULL OR state = $1)
  AND ($2::text IS NULL OR user_name = $2)
  AND ($3::text IS NULL OR account = $3)
  AND ($4::text IS NULL OR partition = $4)
  AND ($5::text IS NULL OR nodes @> ARRAY[$5])
  AND ($6::timestamptz IS NULL OR coalesce(end_time, 'infinity') >= $6)
  AND ($7::timestamptz IS NULL OR start_time < $7)
  AND ($8::text IS NULL OR cluster_name = $8)
  AND ($9::bigint IS NULL OR uid = $9)
