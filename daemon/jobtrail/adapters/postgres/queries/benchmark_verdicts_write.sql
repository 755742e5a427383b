-- Write verdicts over those that are held. $1 JSON array of rows of benchmark_verdict
INSERT INTO benchmark_verdict (
    run_uid, metric, stat, verdict, advisory, baseline_n, median, mad_log, z, relative_change, min_detectable,
    confirmed_by, reference_uid, reference_change, rule_version
)
SELECT v.run_uid, v.metric, v.stat, v.verdict, v.advisory, v.baseline_n, v.median, v.mad_log, v.z, v.relative_change,
       v.min_detectable, v.confirmed_by, v.reference_uid, v.reference_change, v.rule_version
FROM jsonb_populate_recordset(NULL::benchmark_verdict, $1::jsonb) v
JOIN benchmark_run r ON r.run_uid = v.run_uid
ON CONFLICT (run_uid, metric, stat) DO UPDATE SET (
    verdict, advisory, baseline_n, median, mad_log, z, relative_change, min_detectable, confirmed_by, reference_uid,
    reference_change, rule_version, judged_at
) = (
    EXCLUDED.verdict, EXCLUDED.advisory, EXCLUDED.baseline_n, EXCLUDED.median, EXCLUDED.mad_log, EXCLUDED.z,
    EXCLUDED.relative_change, EXCLUDED.min_detectable, EXCLUDED.confirmed_by, EXCLUDED.reference_uid,
    EXCLUDED.reference_change, EXCLUDED.rule_version, now()
)
