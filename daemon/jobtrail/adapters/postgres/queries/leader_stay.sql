-- Keep the transaction that holds the lock alive, and a holder that is gone from keeping it. Unknown settings are left out
SELECT set_config(wanted.name, wanted.value, true)
FROM (
    VALUES
        ('idle_in_transaction_session_timeout', '0'),
        ('transaction_timeout', '0'),
        ('tcp_keepalives_idle', '5'),
        ('tcp_keepalives_interval', '2'),
        ('tcp_keepalives_count', '3')
) AS wanted (name, value)
JOIN pg_settings USING (name)
