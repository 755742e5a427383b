-- Until the end of the transaction, plan each query for its values: a plan for any values takes every filter for given.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true)
