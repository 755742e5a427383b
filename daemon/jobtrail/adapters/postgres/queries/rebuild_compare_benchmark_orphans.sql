-- Runs of benchmarks that no event tells. $1 uids of those that are told, $2 whether the trail could be read wholly
SELECT run_uid::text AS which, to_jsonb(true) AS stored, NULL::jsonb AS expected FROM benchmark_run
WHERE $2::boolean AND run_uid <> ALL ($1::text[]::uuid[])
  AND NOT EXISTS (SELECT FROM audit_chain WHERE pruned_seq > 0)  -- else what tells of them may have been pruned
ORDER BY run_uid
