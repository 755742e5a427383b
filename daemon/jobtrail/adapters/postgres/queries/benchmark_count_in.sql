-- Whether a run counts now that its links are written; where that has changed, it and those after it in its series are to be judged again. $1 uid
WITH found AS (
    SELECT coalesce((
        SELECT link_state = 'linked' FROM benchmark_run_job WHERE run_uid = $1::text::uuid
        ORDER BY role = 'client', array_position(ARRAY['linked', 'pending', 'conflict'], link_state), position LIMIT 1
    ), true) AS counts
), changed AS (
    UPDATE benchmark_run r SET counts = found.counts, judged_at = NULL FROM found
    WHERE r.run_uid = $1::text::uuid AND r.counts <> found.counts
    RETURNING r.fingerprint, r.ended_at, r.run_uid
)
UPDATE benchmark_run later SET judged_at = NULL FROM changed
WHERE later.fingerprint = changed.fingerprint AND (later.ended_at, later.run_uid) > (changed.ended_at, changed.run_uid)
  AND later.judged_at IS NOT NULL
