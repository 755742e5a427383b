-- How far the trail was verified without a finding.
SELECT number, digest FROM audit_verification WHERE findings = 0 ORDER BY number DESC LIMIT 1
