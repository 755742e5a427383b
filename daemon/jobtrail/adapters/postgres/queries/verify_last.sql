-- How far the trail was verified without a finding, be it before one that had some.
SELECT number, digest FROM audit_verification WHERE number > 0 ORDER BY number DESC LIMIT 1
