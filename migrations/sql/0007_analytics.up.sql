-- Figures of a time are of the runs that ended in it.
CREATE INDEX jobs_end_time_idx ON jobs (end_time) WHERE end_time IS NOT NULL;
