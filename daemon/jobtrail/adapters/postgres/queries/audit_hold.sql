-- Place or lift a hold. $1 reason, $2 who orders it, $3 lift
SELECT jobtrail_hold($1, $2, $3) AS noted_seq
