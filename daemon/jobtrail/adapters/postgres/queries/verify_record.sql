-- Keep on record how far the trail was verified. $1 kind, $2 checkpoint, $3 its hash, $4 rows, $5 findings
INSERT INTO audit_verification (kind, number, digest, verified_at, row_count, findings) VALUES ($1, $2, $3, now(), $4, $5)
ON CONFLICT (kind) DO UPDATE SET number = CASE WHEN excluded.findings = 0 THEN excluded.number ELSE audit_verification.number END,
    digest = CASE WHEN excluded.findings = 0 THEN excluded.digest ELSE audit_verification.digest END,
    verified_at = excluded.verified_at, row_count = excluded.row_count, findings = excluded.findings
