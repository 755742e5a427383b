"""The schema: migrations, what the trail refuses, who may do what, partitions, and every query against it."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import psycopg
import pytest

from jobtrail.adapters.postgres import keep_partitions, migrate, session
from jobtrail.adapters.postgres.statements import DIRECTORY, SQL
from jobtrail.domain.benchmarks.metrics import METRICS
from jobtrail.domain.benchmarks.recipe import Gate
from jobtrail.domain.errors import ConfigError, StoreRefused, StoreUnavailable
from tests.postgres import PostgresServer

PACKAGE = DIRECTORY.parent
REVISIONS = sorted(path.name.partition("_")[0] for path in migrate.scripts_directory().glob("versions/0*.py"))

CATALOG = """
SELECT 'column', c.relname, a.attname,
       format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' '
       || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ '^alembic_version'
UNION ALL
SELECT 'relation', c.relname, c.relkind::text,
       pg_get_userbyid(c.relowner) || ' ' || coalesce(c.relacl::text, '') || coalesce(pg_get_viewdef(c.oid), '')
       || coalesce(pg_get_expr(c.relpartbound, c.oid), '')
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
UNION ALL
SELECT 'index', i.indrelid::regclass::text, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname, tgenabled::text || pg_get_triggerdef(oid)
FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function', proname, pg_get_userbyid(proowner) || coalesce(proacl::text, ''), pg_get_functiondef(oid)
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1, 2, 3, 4
"""


def catalog(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(CATALOG).fetchall()


def test_up_down_up_gives_the_same_schema(empty_database: str) -> None:
    told: list[tuple[str, str]] = []
    migrate.upgrade(empty_database, progress=lambda revision, does: told.append((revision, does)))
    assert [revision for revision, _ in told][-1] == migrate.head() == migrate.current(empty_database)
    assert all(does for _, does in told)
    first = catalog(empty_database)
    assert {row[1] for row in first if row[0] == "relation"} > {"jobs", "job_nodes", "audit_log", "job_audit_events"}
    migrate.downgrade(empty_database, "base")
    assert migrate.current(empty_database) is None
    assert [row for row in catalog(empty_database) if row[1] != "alembic_version"] == []
    migrate.upgrade(empty_database)
    assert catalog(empty_database) == first


def test_each_revision_undoes_what_it_does(empty_database: str) -> None:
    for revision, next_one in pairwise(REVISIONS):
        migrate.upgrade(empty_database, revision)
        before = catalog(empty_database)
        migrate.upgrade(empty_database, next_one)
        assert catalog(empty_database) != before
        migrate.downgrade(empty_database, revision)
        assert catalog(empty_database) == before


def test_runs_stored_before_slurm_was_asked_are_marked_to_be_asked_about(empty_database: str) -> None:
    rows = {
        "slurm-1": ("running", False, ["n1", "n2"]),
        "slurm-2": ("failed", False, None),
        "slurm-3": ("completed", True, []),
        "local-4": ("running", False, ["n1"]),
    }
    migrate.upgrade(empty_database, "0001")
    with psycopg.connect(empty_database, autocommit=True) as connection:
        for job_id, values in rows.items():
            connection.execute(
                "INSERT INTO jobs (cluster_name, job_id, run, correlation_id, projection, state, state_confirmed,"
                " nodes) VALUES ('c', %s, 1, gen_random_uuid(), '{}', %s, %s, %s)",
                (job_id, *values),
            )
        migrate.upgrade(empty_database)
        found = connection.execute("SELECT job_id, awaits, nodes_total FROM jobs ORDER BY job_id").fetchall()
    assert found == [
        ("local-4", None, 1), ("slurm-1", "facts", 2), ("slurm-2", "outcome", None), ("slurm-3", None, None),
    ]  # fmt: skip


def test_the_printed_sql_gives_the_same_schema(empty_database: str) -> None:
    """On the same day: the first partitions are those of the days around."""
    migrate.upgrade(empty_database)
    migrated = catalog(empty_database)
    migrate.downgrade(empty_database, "base")
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("DROP TABLE alembic_version")
        connection.execute(migrate.sql().encode())
    assert catalog(empty_database) == migrated
    assert migrate.current(empty_database) == migrate.head()


def test_a_second_upgrade_does_nothing(database: str) -> None:
    told: list[str] = []
    migrate.upgrade(database, progress=lambda revision, _: told.append(revision))
    assert told == []


def test_an_unknown_revision_and_a_missing_server_are_told_apart(database: str) -> None:
    with pytest.raises(ConfigError, match="no_such"):
        migrate.upgrade(database, "no_such")
    with pytest.raises(ConfigError, match="no_such"):
        migrate.sql("no_such")
    with pytest.raises(StoreUnavailable):
        migrate.current("postgresql://nobody@127.0.0.1:1/none")


def test_a_login_that_may_not_create_roles_migrates_all_the_same(postgres_server: PostgresServer) -> None:
    """The roles exist on this server already; the login owns its database, and what it makes stays its own."""
    postgres_server.execute("CREATE ROLE plain_owner LOGIN")
    postgres_server.execute("CREATE DATABASE plain OWNER plain_owner")
    try:
        url = postgres_server.url("plain", user="plain_owner")
        migrate.upgrade(url)
        owners = {row[3].split()[0] for row in catalog(url) if row[0] == "relation"}
        assert owners == {"plain_owner"}
    finally:
        postgres_server.drop_database("plain")
        postgres_server.execute("DROP ROLE plain_owner")


PARAMETER = re.compile(r"\$(\d+)")


async def test_each_query_fits_the_schema_and_says_its_parameters(pool: Any) -> None:
    async with session(pool, 10.0) as connection:
        for name, text in SQL.items():
            first_line, _, body = text.partition("\n")
            assert first_line.startswith("-- "), name
            statement = await connection.prepare(text)
            described = {int(number) for number in PARAMETER.findall(first_line)}
            used = {int(number) for number in PARAMETER.findall(body)}
            assert described == used == set(range(1, len(statement.get_parameters()) + 1)), name


def test_each_query_file_is_used_and_each_used_query_exists() -> None:
    """Named in `SQL[...]`, or handed to a method that looks it up."""
    names = re.compile(r'(?:SQL\[|self\._\w+\()"(\w+)"')
    used = {name for path in PACKAGE.glob("*.py") for name in names.findall(path.read_text())}
    assert used == set(SQL) == {path.stem for path in DIRECTORY.iterdir()}


CHANGES = [
    "UPDATE {} SET seq = seq + 1",
    "DELETE FROM {}",
    "TRUNCATE {} CASCADE",
]


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_trail_refuses_every_change_even_to_a_superuser(database: str, change: str, role: str) -> None:
    month = f"audit_payload_{datetime.now(UTC):%Y%m}"
    with psycopg.connect(database, autocommit=True) as connection:
        row = "'11111111-1111-1111-1111-111111111111', 1"
        zero = "decode(repeat('00', 32), 'hex')"
        connection.execute(
            "INSERT INTO audit_log (chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at,"
            f" received_at) VALUES ({row}, gen_random_uuid(), 'x', {zero}, {zero}, {zero}, now(), now())"
        )
        for received_at in ("now()", "'1999-01-01'"):
            connection.execute(f"INSERT INTO audit_payload VALUES ({row}, {received_at}, 'p', 's')")
        connection.execute(f"INSERT INTO audit_conflict VALUES ({row}, 'h', 'o', 'p', 'r')")
        connection.execute(f"SET session_replication_role = {role}")
        for table in ("audit_log", "audit_payload", month, "audit_payload_default", "audit_conflict"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"refused: the audit trail is append-only"):
                connection.execute(change.format(table))


INSERTS = {
    "jobs": "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection) "
    "VALUES ('c', 'j', 1, 'running', gen_random_uuid(), '{}')",
    "job_samples": "INSERT INTO job_samples (sampled_at, cluster_name, job_id, node, source) "
    "VALUES (now(), 'c', 'j', 'n', 's')",
    "job_gpus": "INSERT INTO job_gpus (cluster_name, job_id, run, node, gpu_id) VALUES ('c', 'j', 1, 'n', 'g')",
    "gpu_samples": "INSERT INTO gpu_samples (sampled_at, node, gpu_id, vendor) VALUES (now(), 'n', 'g', 'nvidia')",
    "energy_samples": "INSERT INTO energy_samples (sampled_at, cluster_name, job_id, node) "
    "VALUES (now(), 'c', 'j', 'n')",
    "audit_payload": "INSERT INTO audit_payload VALUES (gen_random_uuid(), 1, now(), 'p', 's')",
    "benchmark_decision": "INSERT INTO benchmark_decision (run_uid, event_id, decision, decided_at, decided_by) "
    "VALUES (gen_random_uuid(), gen_random_uuid(), 'pin', now(), 'x')",
}
RIGHTS: dict[str, tuple[list[str], list[str]]] = {  # role: what it may, what it may not
    "jobtrail_ingest": (
        [*(text for table, text in INSERTS.items() if table != "audit_payload"), "UPDATE jobs SET qos = 'q'",
         "SELECT * FROM job_audit_events", "SELECT payload FROM audit_payload",
         "SELECT jobtrail_keep_partitions(1, 7)", "SELECT * FROM job_efficiency", "DELETE FROM nodes",
         "UPDATE job_gpus SET name = 'x'", "UPDATE benchmark_run SET model = 'x'", "DELETE FROM benchmark_energy",
         "DELETE FROM benchmark_verdict", "SELECT * FROM benchmark_run_summary", "SELECT * FROM job_energy"],
        [INSERTS["audit_payload"], "SELECT salt FROM audit_payload", "INSERT INTO audit_log DEFAULT VALUES",
         "UPDATE audit_chain SET head_seq = 0",
         "DELETE FROM benchmark_run", "DELETE FROM benchmark_recipe", "UPDATE benchmark_decision SET reason = 'x'",
         "DELETE FROM benchmark_decision", "UPDATE benchmark_metric_def SET unit = 'x'", "DELETE FROM jobs",
         "TRUNCATE jobs", "DELETE FROM job_gpus", "DELETE FROM gpu_samples",
         "DELETE FROM energy_samples", "UPDATE audit_log SET kind = 'x'", "DELETE FROM audit_log",
         "TRUNCATE audit_log", "UPDATE audit_payload SET payload = ''", "DELETE FROM audit_chain",
         "ALTER TABLE audit_log DISABLE TRIGGER ALL", "DROP TABLE job_samples",
         "SET session_replication_role = replica", "SELECT jobtrail_apply_grants()", "CREATE TABLE mine ()"],
    ),
    "jobtrail_reader": (
        ["SELECT * FROM jobs", "SELECT * FROM job_nodes", "SELECT * FROM nodes", "SELECT * FROM job_samples",
         "SELECT * FROM audit_log", "SELECT * FROM job_audit_events", "SELECT * FROM job_efficiency",
         "SELECT payload FROM audit_payload", "SELECT * FROM benchmark_run_summary", "SELECT * FROM benchmark_metric",
         "SELECT * FROM job_gpus", "SELECT * FROM gpu_samples",
         "SELECT * FROM job_energy", "SELECT * FROM energy_samples"],
        [*INSERTS.values(), "SELECT salt FROM audit_payload", "SELECT * FROM audit_payload",
         "UPDATE jobs SET qos = 'q'", "DELETE FROM nodes", "SELECT jobtrail_keep_partitions(1, 7)"],
    ),
    "jobtrail_auditor": (
        ["SELECT * FROM audit_log", "SELECT * FROM audit_payload", "SELECT * FROM audit_chain",
         "SELECT * FROM audit_conflict", "SELECT * FROM job_audit_events"],
        [*INSERTS.values(), "SELECT * FROM jobs", "SELECT * FROM benchmark_run_summary", "SELECT * FROM nodes",
         "SELECT * FROM job_samples",
         "SELECT * FROM job_gpus", "SELECT * FROM gpu_samples", "SELECT * FROM job_energy",
         "SELECT * FROM energy_samples"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("role", sorted(RIGHTS))
def test_each_role_may_do_its_work_and_nothing_else(database: str, role: str) -> None:
    allowed, forbidden = RIGHTS[role]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"SET ROLE {role}")
        for statement in allowed:
            connection.execute(statement.encode())
        for statement in forbidden:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_nobody_can_log_in_as_the_owner_and_it_owns_every_table(database: str) -> None:
    with psycopg.connect(database) as connection:
        logins = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'jobtrail%' AND rolcanlogin")
        assert logins.fetchall() == []
        members = connection.execute(
            "SELECT m.member::regrole FROM pg_auth_members m WHERE m.roleid = 'jobtrail_owner'::regrole"
        )
        assert members.fetchall() == []
    owners = {row[3].split()[0] for row in catalog(database) if row[0] == "relation" and row[1] != "alembic_version"}
    assert owners == {"jobtrail_owner"}


async def partitions(connection: Any, table: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::regclass", table
    )
    return sorted(row["name"] for row in rows)


@pytest.mark.parametrize("table", ["job_samples", "gpu_samples", "energy_samples"])
async def test_partitions_are_made_ahead_and_sample_days_dropped_after_retention(pool: Any, table: str) -> None:
    today = datetime.now(UTC).date()
    old = today - timedelta(days=9)
    await keep_partitions(pool, days_ahead=3, retention_days=7, timeout_seconds=10.0)  # a day may have begun meanwhile
    async with session(pool, 10.0) as connection:
        made = await partitions(connection, table)
        assert made[-4:] == [f"{table}_{today + timedelta(days=n):%Y%m%d}" for n in range(4)]
        await connection.execute("SET ROLE jobtrail_owner")
        for day in (old, old + timedelta(days=1), old + timedelta(days=2)):
            await connection.execute(
                f"CREATE TABLE {table}_{day:%Y%m%d} PARTITION OF {table} "
                f"FOR VALUES FROM ('{day} 00:00+00') TO ('{day + timedelta(days=1)} 00:00+00')"
            )
    created, dropped = await keep_partitions(pool, days_ahead=5, retention_days=7, timeout_seconds=10.0)
    assert (created, dropped) == (6, 2)  # two days more of each table
    assert await keep_partitions(pool, days_ahead=5, retention_days=7, timeout_seconds=10.0) == (0, 0)
    async with session(pool, 10.0) as connection:
        days = await partitions(connection, table)
        months = await partitions(connection, "audit_payload")
    expected = [old + timedelta(days=2), *(today + timedelta(days=n) for n in (4, 5))]
    assert days == sorted([*made, *(f"{table}_{day:%Y%m%d}" for day in expected)])
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    assert {f"audit_payload_{today:%Y%m}", f"audit_payload_{next_month:%Y%m}"} <= set(months)


async def test_a_month_whose_rows_came_before_its_partition_stays_in_the_default_one(pool: Any) -> None:
    """Or the partitions of all later days could not be made either."""
    await keep_partitions(pool, days_ahead=3, retention_days=7, timeout_seconds=10.0)  # a day may have begun meanwhile
    async with session(pool, 10.0) as connection:
        month = f"audit_payload_{datetime.now(UTC):%Y%m}"
        await connection.execute(f"DROP TABLE {month}")
        await connection.execute("INSERT INTO audit_payload VALUES (gen_random_uuid(), 1, now(), 'p', 's')")
    created, _ = await keep_partitions(pool, days_ahead=4, retention_days=7, timeout_seconds=10.0)
    assert created == 3  # a day of each table of samples
    async with session(pool, 10.0) as connection:
        assert month not in await partitions(connection, "audit_payload")


@pytest.mark.parametrize(("days_ahead", "retention_days"), [(-1, 7), (1, 0), (1, -3), (400, 7)])
async def test_absurd_retention_is_refused(pool: Any, days_ahead: int, retention_days: int) -> None:
    with pytest.raises(StoreRefused, match="must be"):
        await keep_partitions(pool, days_ahead=days_ahead, retention_days=retention_days, timeout_seconds=10.0)


async def test_efficiency_is_null_where_a_part_is_unknown(pool: Any) -> None:
    insert = (
        "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection, start_time, end_time,"
        " cpus_allocated, cpu_seconds, memory_peak_bytes, memory_limit_bytes)"
        " VALUES ('c', $1, 1, 'ended', gen_random_uuid(), '{}', now(), now() + $2 * interval '1 s', $3, $4, $5, $6)"
    )
    async with session(pool, 10.0) as connection:
        await connection.execute(insert, "whole", 10.0, 4, 20.0, 512, 1024)
        await connection.execute(insert, "no cpus", 10.0, None, 20.0, None, 1024)
        await connection.execute(insert, "no time", 0.0, 4, 20.0, 512, None)
        rows = await connection.fetch("SELECT job_id, cpu_efficiency, memory_efficiency FROM job_efficiency")
    assert {row["job_id"]: tuple(row)[1:] for row in rows} == {
        "whole": (0.5, 0.5), "no cpus": (None, None), "no time": (None, None),
    }  # fmt: skip


@pytest.mark.parametrize("values", ["'running', 'nonsense'", "'nonsense', NULL"])
async def test_the_state_and_verdict_of_a_job_are_checked(pool: Any, values: str) -> None:
    async with session(pool, 10.0) as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "INSERT INTO jobs (cluster_name, job_id, run, correlation_id, projection, state, verdict) "
                f"VALUES ('c', 'j', 1, gen_random_uuid(), '{{}}', {values})"
            )


def test_the_vocabulary_of_benchmarks_is_the_same_in_the_database(database: str) -> None:
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT metric, unit, direction, gates, min_rel FROM benchmark_metric_def").fetchall()
    assert {row[0]: row[1:] for row in rows} == {
        name: (metric.unit, str(metric.direction), list(metric.gates), Gate().min_rel)
        for name, metric in METRICS.items()
    }


def test_a_daemon_takes_manual_jobs_from_the_others_and_no_other(database: str) -> None:
    """Of jobs a daemon deletes nothing itself; the function that moves withdrawn ones takes manual jobs alone."""
    withdraw = (
        "SELECT jobtrail_withdraw_jobs(jsonb_build_array(jsonb_build_object('cluster_name', 'c1', 'job_id', %s::text,"
        " 'run', 1, 'withdrawn_at', now(), 'correlation_id', gen_random_uuid(), 'job', '{}', 'projection', '{}')))"
    )
    held = "SELECT job_id FROM jobs UNION ALL SELECT 'withdrawn ' || job_id FROM jobs_withdrawn ORDER BY 1"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection) "
            "SELECT 'c1', name, 1, 'pending', gen_random_uuid(), '{}' FROM unnest('{manual-a,slurm-1}'::text[]) AS name"
        )
        for role in ("jobtrail_reader", "jobtrail_auditor"):
            connection.execute(f"SET ROLE {role}".encode())
            assert connection.execute("SELECT count(*) FROM jobs_withdrawn").fetchone() == (0,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(withdraw, ("manual-a",))
        connection.execute("SET ROLE jobtrail_ingest")
        for refused in ("DELETE FROM jobs", "DELETE FROM jobs_withdrawn", "UPDATE jobs_withdrawn SET run = 2"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused)
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(withdraw, ("slurm-1",))
        for _ in range(2):
            connection.execute(withdraw, ("manual-a",))
        assert connection.execute(held).fetchall() == [("slurm-1",), ("withdrawn manual-a",)]
