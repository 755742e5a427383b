-- Until the end of the transaction, give up what takes longer. $1 milliseconds, as text
SELECT set_config('statement_timeout', $1, true)
