-- What auditors and managers ask is found without reading the trail from end to end.
--
-- Events lie in the table in the order in which they were stored, so a block range index says where a period is; it costs
-- an insert nothing. The indexes that follow hold only the few rows they are about. IF NOT EXISTS: where the tables are large,
-- an administrator can make the same indexes beforehand with CREATE INDEX CONCURRENTLY, without holding up the daemons.
CREATE INDEX IF NOT EXISTS audit_log_stored_at_idx ON audit_log USING brin (stored_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX IF NOT EXISTS audit_log_late_idx ON audit_log (stored_at)
    WHERE NOT stored_at - changed_at BETWEEN interval '-1 minute' AND interval '10 minutes';
CREATE INDEX IF NOT EXISTS audit_log_people_idx ON audit_log (changed_at) WHERE changed_by IN ('api', 'cli');
CREATE INDEX IF NOT EXISTS audit_log_unapplied_idx ON audit_log (changed_at) WHERE unapplied IS NOT NULL;
-- Verdict, account and end of a run are written together when it ends, so that checkpoints still update rows in place.
CREATE INDEX IF NOT EXISTS jobs_account_idx ON jobs (account, end_time) WHERE end_time IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_verdict_idx ON jobs (verdict, end_time) WHERE verdict <> 'completed';
CREATE INDEX IF NOT EXISTS jobs_end_inferred_idx ON jobs (end_time) WHERE end_inferred;
CREATE INDEX IF NOT EXISTS jobs_out_of_memory_idx ON jobs (end_time)
    WHERE verdict = 'out_of_memory' OR out_of_memory_step OR oom_kills > 0;
-- What ran on a node between two times, and what runs there still (ended_at IS NULL), however long the node has been there.
CREATE INDEX IF NOT EXISTS job_nodes_ended_at_idx ON job_nodes (node, ended_at);
