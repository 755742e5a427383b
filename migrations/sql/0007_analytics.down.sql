DROP INDEX jobs_end_time_idx;
