-- Clusters with runs that Slurm is to be asked about; two are as good as many
SELECT DISTINCT cluster_name
FROM jobs
WHERE awaits IS NOT NULL
LIMIT 2
