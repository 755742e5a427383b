-- Where a run stands in the history of its series. $1 uid
SELECT run_uid::text, fingerprint, ended_at, (extract(epoch FROM ended_at) * 1000000)::bigint AS ended_us, status, error_rate, counts
FROM benchmark_run WHERE run_uid = $1::text::uuid
