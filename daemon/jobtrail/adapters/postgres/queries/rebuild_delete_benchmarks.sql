-- Delete runs of benchmarks with all that follows from them. $1 uids of wrong ones, $2 uids of those that are told, $3 whether the others are wrong too
DELETE FROM benchmark_run
WHERE run_uid = ANY ($1::text[]::uuid[])
   OR ($3::boolean AND run_uid <> ALL ($2::text[]::uuid[]) AND NOT EXISTS (SELECT FROM audit_chain WHERE pruned_seq > 0))
