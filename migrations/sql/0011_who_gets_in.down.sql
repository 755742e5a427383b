-- Nodes are known by certificates or not at all; the record of who was turned away is lost.
DROP FUNCTION jobtrail_apply_grants();
ALTER FUNCTION jobtrail_apply_trail_grants() RENAME TO jobtrail_apply_grants;
DROP VIEW security_events;
DROP TABLE security_log;
DROP FUNCTION jobtrail_add_node_token(text, bytea, timestamptz, text);
DROP TABLE node_tokens;
