-- How many nodes match. $1 state or state flag, $2 partition, $3 cluster; NULL is any
SELECT count(*)
FROM nodes
WHERE ($1::text IS NULL OR state = $1 OR $1 = ANY (state_flags))
    AND ($2::text IS NULL OR partitions @> ARRAY[$2])
    AND ($3::text IS NULL OR cluster_name = $3)
