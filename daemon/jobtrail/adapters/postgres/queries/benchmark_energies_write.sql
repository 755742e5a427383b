-- Write the energy of a run. $1 JSON array of rows of benchmark_energy
INSERT INTO benchmark_energy (
    run_uid, time_window, domain, joules, method, coverage, pue, factor_grams_per_kwh, factor_source, factor_year
)
SELECT run_uid, time_window, domain, joules, method, coverage, pue, factor_grams_per_kwh, factor_source, factor_year
FROM jsonb_populate_recordset(NULL::benchmark_energy, $1::jsonb)
