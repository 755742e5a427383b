-- By what a run's recipe wants it judged. $1 uid
SELECT gates FROM benchmark_run WHERE run_uid = $1::text::uuid
