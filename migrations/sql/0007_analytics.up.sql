-- Figures of a time are of the runs that ended in it.
CREATE INDEX jobs_end_time_idx ON jobs (end_time) WHERE end_time IS NOT NULL;
-- Users who ask for their own runs are known by their uid.
CREATE INDEX jobs_uid_idx ON jobs (uid) WHERE uid IS NOT NULL;
