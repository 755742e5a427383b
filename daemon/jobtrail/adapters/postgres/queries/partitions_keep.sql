-- Make partitions ahead and drop sample days past retention. $1 days ahead, $2 days to keep, NULL drops nothing
SELECT created, dropped FROM jobtrail_keep_partitions($1::integer, $2::integer)
