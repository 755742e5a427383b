DROP INDEX audit_log_stored_at_idx, audit_log_late_idx, audit_log_people_idx, audit_log_unapplied_idx, jobs_account_idx,
    jobs_verdict_idx, jobs_end_inferred_idx, jobs_out_of_memory_idx, job_nodes_ended_at_idx;
