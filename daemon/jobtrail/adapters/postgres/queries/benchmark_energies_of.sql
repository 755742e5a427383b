-- The runs' energy. $1 uids
SELECT run_uid::text, time_window, domain, joules, method, coverage, pue, factor_grams_per_kwh, factor_source, factor_year
FROM benchmark_energy WHERE run_uid = ANY ($1::text[]::uuid[]) ORDER BY run_uid, time_window, domain
