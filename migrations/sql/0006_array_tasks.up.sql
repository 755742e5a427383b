-- Tasks of arrays are asked for as `123_7`, by the array's id and theirs.
CREATE INDEX jobs_array_task_idx ON jobs (array_job_id, array_task_id) WHERE array_job_id IS NOT NULL;
