-- Erase a person. $1 name, $2 basis, $3 who orders it
SELECT * FROM jobtrail_erase($1, $2, $3)
