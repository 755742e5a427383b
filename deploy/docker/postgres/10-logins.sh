#!/bin/sh
# The official image runs this once, when the database is new: the group roles that the migration grants to, the daemons'
# login and Grafana's. Passwords come from secrets and go to psql over a pipe, never as an argument.
set -eu
node=$(cat "${SECRETS:-/run/secrets}/jobtrail_node_password")
reader=$(cat "${SECRETS:-/run/secrets}/grafana_database_password")
case $node$reader in *[!A-Za-z0-9._~+/=-]*) echo "10-logins: a password may hold letters, digits and ._~+/=- only" >&2; exit 1 ;; esac
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname="$POSTGRES_DB" <<SQL
CREATE ROLE jobtrail_owner NOLOGIN;
CREATE ROLE jobtrail_ingest NOLOGIN;
CREATE ROLE jobtrail_reader NOLOGIN;
CREATE ROLE jobtrail_auditor NOLOGIN;
CREATE ROLE jobtrail_sealer NOLOGIN;
CREATE ROLE jobtrail_retention NOLOGIN;
CREATE ROLE jobtrail_erase NOLOGIN;
CREATE ROLE jobtrail_node LOGIN IN ROLE jobtrail_ingest, jobtrail_sealer PASSWORD '$node';
CREATE ROLE jobtrail_grafana LOGIN IN ROLE jobtrail_reader PASSWORD '$reader';
ALTER ROLE jobtrail_grafana SET default_transaction_read_only = on;
REVOKE ALL ON DATABASE jobtrail FROM PUBLIC;
GRANT CONNECT ON DATABASE jobtrail TO jobtrail_node, jobtrail_grafana;
SQL
