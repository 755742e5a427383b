-- Take away what followed from a run's links and energy. $1 uid
WITH links AS (
    DELETE FROM benchmark_run_job WHERE run_uid = $1::text::uuid
), energies AS (
    DELETE FROM benchmark_energy WHERE run_uid = $1::text::uuid
)
DELETE FROM benchmark_metric WHERE run_uid = $1::text::uuid AND settled
