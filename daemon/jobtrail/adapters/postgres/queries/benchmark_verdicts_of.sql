-- The verdicts on runs. $1 uids
SELECT run_uid::text, metric, stat, verdict, advisory, baseline_n, median, mad_log, z, relative_change, min_detectable,
       confirmed_by, reference_uid::text, reference_change, rule_version, judged_at
FROM benchmark_verdict WHERE run_uid = ANY ($1::text[]::uuid[]) ORDER BY run_uid, advisory, metric, stat
