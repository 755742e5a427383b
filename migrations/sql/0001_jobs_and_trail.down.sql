-- Removes everything of this revision, the trail with it. The roles stay: other databases of the server may use them.

DROP VIEW job_efficiency, job_audit_events;
DROP TABLE job_samples, audit_conflict, audit_payload, audit_log, audit_chain, job_nodes, jobs;
DROP FUNCTION jobtrail_apply_grants(), jobtrail_event_json(bytea), jobtrail_keep_partitions(integer, integer),
    jobtrail_guard_payload_partition(text), jobtrail_refuse_change();
