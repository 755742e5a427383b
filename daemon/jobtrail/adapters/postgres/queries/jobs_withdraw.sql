-- Set runs apart that are withdrawn, or write them anew there. $1 JSON array of rows of jobs_withdrawn
SELECT jobtrail_withdraw_jobs($1::jsonb)
