-- Put on record who was turned away. $1 rows as JSON
INSERT INTO security_log (what, who, peer, detail, reporter, first_at, last_at, times)
SELECT what, who, peer, detail, reporter, first_at, last_at, times
FROM jsonb_to_recordset($1::jsonb) AS r (
    what text, who text, peer text, detail text, reporter text, first_at timestamptz, last_at timestamptz, times bigint
)
