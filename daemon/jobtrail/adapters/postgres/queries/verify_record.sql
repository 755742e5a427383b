-- Keep on record how far the trail was verified; how far it was good stays where something was found. $1 kind, $2 checkpoint, $3 its hash, $4 rows, $5 findings
INSERT INTO audit_verification AS v (kind, number, digest, verified_at, row_count, findings)
VALUES ($1, CASE WHEN $5 = 0 THEN $2::bigint ELSE 0 END, CASE WHEN $5 = 0 THEN $3::bytea END, now(), $4, $5::bigint)
ON CONFLICT (kind) DO UPDATE SET
    number = CASE WHEN excluded.findings = 0 THEN excluded.number ELSE v.number END,
    digest = CASE WHEN excluded.findings = 0 THEN excluded.digest ELSE v.digest END,
    verified_at = excluded.verified_at, row_count = excluded.row_count, findings = excluded.findings
