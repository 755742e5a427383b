-- Runs in each state.
SELECT state, count(*) AS jobs FROM jobs GROUP BY state
