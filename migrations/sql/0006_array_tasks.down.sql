DROP INDEX jobs_array_task_idx;
