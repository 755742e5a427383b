-- Remove old rows. $1 received before, $2 basis, $3 who orders it, $4 $5 number and hash of an anchored checkpoint, $6 payloads only
SELECT * FROM jobtrail_prune($1, $2, $3, $4, $5, $6)
