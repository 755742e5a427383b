-- Seconds since the whole trail was verified last, whatever was found; no row where it never was
SELECT extract(epoch FROM now() - verified_at)::double precision FROM audit_verification WHERE kind = 'full'
