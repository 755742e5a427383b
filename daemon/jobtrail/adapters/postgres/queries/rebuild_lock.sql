-- Keep all writers of the projection out until the end of the transaction; readers go on.
LOCK TABLE jobs, jobs_withdrawn, job_nodes, job_gpus, benchmark_recipe, benchmark_run, benchmark_run_job, benchmark_metric,
    benchmark_energy, benchmark_verdict, benchmark_decision IN SHARE ROW EXCLUSIVE MODE
