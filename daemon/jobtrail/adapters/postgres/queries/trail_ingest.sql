-- Store rows of one chain; with none, lock it. $1 chain id, $2 node; of each row: $3 sequence, $4 event id, $5 kind, $6 $7 times in µs, $8 payload, $9 salt, $10 $11 $12 hashes, $13 $14 $15 $16 $17 $18 $19 $20 $21 $22 what the store adds, $23 snapshot, $24 person, $25 sender
SELECT done.*, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS store_time_us
FROM jobtrail_ingest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                     $22, $23, $24, $25) AS done
