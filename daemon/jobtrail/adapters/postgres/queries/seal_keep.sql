-- Keep a checkpoint. $1 number, $2 previous hash, $3 root, $4 rows, $5 time in µs, $6 signature, $7 key; of each leaf: $8 chain, $9 sequence, $10 $11 hashes, $12 path
SELECT jobtrail_seal($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
