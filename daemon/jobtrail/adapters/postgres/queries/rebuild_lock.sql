-- Keep all writers of the projection out until the end of the transaction; readers go on.
LOCK TABLE jobs, job_nodes, job_gpus IN SHARE ROW EXCLUSIVE MODE
