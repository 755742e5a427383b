-- The pinned run of a series, if it lies before another one. $1 fingerprint, $2 end of that run, $3 its uid
SELECT r.run_uid::text, (extract(epoch FROM r.ended_at) * 1000000)::bigint AS ended_us, r.status, r.error_rate
FROM benchmark_reference p
JOIN benchmark_run r ON r.run_uid = p.run_uid
WHERE p.pinned AND p.fingerprint = $1 AND (p.ended_at, p.run_uid) < ($2, $3::text::uuid)
  AND r.counts
