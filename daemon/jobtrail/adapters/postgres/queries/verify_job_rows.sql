-- Rows about a job, with the places in their chains that checkpoints cover before and after them. $1 job id, $2 cluster or NULL
SELECT l.chain_id::text, l.seq,
       (SELECT max(f.head_seq) FROM audit_checkpoint_leaf f WHERE f.chain_id = l.chain_id AND f.head_seq < l.seq) AS before,
       (SELECT min(f.head_seq) FROM audit_checkpoint_leaf f WHERE f.chain_id = l.chain_id AND f.head_seq >= l.seq) AS after
FROM audit_log l
WHERE l.job_id = $1 AND ($2::text IS NULL OR l.cluster_name = $2)
ORDER BY l.chain_id, l.seq
