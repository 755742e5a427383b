DROP INDEX jobs_end_time_idx;
DROP INDEX jobs_uid_idx;
