"""T-47: every role tries every kind of statement on every table and function. The list of what passes is exact."""

import re
from typing import Any

import psycopg
import pytest

from tests.faults.figures import Figures
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.fault("T-47")]

ROLES = (
    "jobtrail_owner", "jobtrail_ingest", "jobtrail_reader", "jobtrail_auditor", "jobtrail_sealer", "jobtrail_retention",
    "jobtrail_erase", "nobody_at_all",
)  # fmt: skip
PROJECTION = ("jobs", "job_nodes", "job_gpus", "benchmark_recipe", "benchmark_run")
REPLACED = ("nodes", "benchmark_run_job", "benchmark_metric", "benchmark_energy", "benchmark_verdict")
APPENDED = ("job_samples", "gpu_samples", "energy_samples", "benchmark_decision")
TRAIL = ("audit_chain", "audit_log", "audit_checkpoint", "audit_checkpoint_leaf")
# role -> (statement, table or view) that passes; `SELECT some` is a right on some columns only.
OF_THE_TRAIL: dict[str, set[tuple[str, str]]] = {
    "jobtrail_ingest": {
        *(("SELECT", table) for table in (*TRAIL, "audit_conflict", "audit_seal", "audit_verification",
                                          "audit_removed_run")),
        ("SELECT some", "audit_payload"),
    },
    "jobtrail_reader": {
        *(("SELECT", table) for table in (*TRAIL, "audit_verification")), ("SELECT some", "audit_payload"),
    },
    "jobtrail_auditor": {
        ("SELECT", table)
        for table in (*TRAIL, "audit_payload", "audit_conflict", "audit_seal", "audit_verification", "audit_hold",
                      "audit_removed_run")
    },
    "jobtrail_sealer": {
        *(("SELECT", table) for table in (*TRAIL, "audit_payload", "audit_seal", "audit_verification")),
        ("INSERT", "audit_verification"), ("UPDATE", "audit_verification"),
    },
    "jobtrail_retention": {("SELECT", "audit_checkpoint"), ("SELECT", "audit_hold")},
    "jobtrail_erase": {("SELECT", "audit_hold")},
    "nobody_at_all": set(),
}  # fmt: skip
FUNCTIONS: dict[str, set[str]] = {
    "jobtrail_ingest": {"jobtrail_ingest", "jobtrail_keep_partitions", "jobtrail_withdraw_jobs"},
    "jobtrail_reader": set(),
    "jobtrail_auditor": set(),
    "jobtrail_sealer": {"jobtrail_seal", "jobtrail_prune_security"},
    "jobtrail_retention": {"jobtrail_prune", "jobtrail_hold"},
    "jobtrail_erase": {"jobtrail_erase"},
    "nobody_at_all": set(),
}
OPEN_TO_ALL = {"jobtrail_event_json", "jobtrail_refuse_change"}  # pure; a trigger's, which nobody can call
STATEMENTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
DDL = (
    "ALTER TABLE {} DISABLE TRIGGER ALL", "ALTER TABLE {} ADD COLUMN mine integer", "DROP TABLE {} CASCADE",
    "CREATE TRIGGER mine BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION jobtrail_refuse_change()",
)  # fmt: skip


@pytest.fixture
def connection(postgres_server: PostgresServer, database: str) -> Any:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute("DO $$ BEGIN CREATE ROLE nobody_at_all; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        yield opened


def relations(connection: Any, pattern: str) -> list[tuple[str, str]]:
    return connection.execute(
        "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p', 'v') AND relname ~ %s ORDER BY relname",
        (pattern,),
    ).fetchall()


def attempt(connection: Any, role: str, statement: str) -> str:
    """`allowed`, `denied`, or another error's message: then the right is there and the statement fails at its work."""
    connection.execute("BEGIN")
    try:
        connection.execute(f"SET LOCAL ROLE {role}".encode())
        connection.execute("SET LOCAL lock_timeout = '30s'")
        connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege as error:
        return "refused" if "append-only" in str(error) else "denied"
    except psycopg.Error as error:
        return str(error)
    finally:
        connection.execute("ROLLBACK")
    return "allowed"


def statement_on(connection: Any, kind: str, table: str) -> str:
    column = connection.execute(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped ORDER BY attnum LIMIT 1",
        (table,),
    ).fetchone()[0]
    return {
        "SELECT": f"SELECT * FROM {table}",
        "INSERT": f"INSERT INTO {table} DEFAULT VALUES",
        "UPDATE": f"UPDATE {table} SET {column} = {column}",
        "DELETE": f"DELETE FROM {table}",
        "TRUNCATE": f"TRUNCATE {table} CASCADE",
    }[kind]


def test_of_the_trail_each_role_may_do_exactly_what_is_listed(connection: Any, figures: Figures) -> None:
    cells = 0
    for role, expected in OF_THE_TRAIL.items():
        passed: set[tuple[str, str]] = set()
        for table, _ in relations(connection, "^audit_"):
            for kind in STATEMENTS:
                cells += 1
                if attempt(connection, role, statement_on(connection, kind, table)) != "denied":
                    passed.add((kind, table))
            if ("SELECT", table) not in passed and attempt(
                connection, role, f"SELECT chain_id FROM {table}"
            ) == "allowed":
                passed.add(("SELECT some", table))
        assert passed == expected, role
    figures.set(cells=cells)


def test_no_role_but_the_owner_changes_any_table_of_the_schema(connection: Any, figures: Figures) -> None:
    cells = 0
    for role in ROLES[1:]:
        for table, kind in relations(connection, "^(jobs|job_|audit_|nodes$|benchmark_|gpu_|energy_)"):
            if kind == "v":
                continue
            for ddl in DDL:
                cells += 1
                assert attempt(connection, role, ddl.format(table)) == "denied", (role, ddl, table)
        for statement in ("SET session_replication_role = replica", "CREATE TABLE mine ()", "CREATE ROLE mine",
                          "GRANT jobtrail_owner TO jobtrail_ingest", "ALTER ROLE jobtrail_ingest SUPERUSER",
                          "COPY audit_log TO PROGRAM 'true'"):  # fmt: skip
            cells += 1
            assert attempt(connection, role, statement) == "denied", (role, statement)
    figures.set(cells=cells)


def test_of_the_projection_ingest_may_write_and_nobody_else(connection: Any, figures: Figures) -> None:
    may = {
        **dict.fromkeys(PROJECTION, ("SELECT", "INSERT", "UPDATE")),
        **dict.fromkeys(REPLACED, ("SELECT", "INSERT", "UPDATE", "DELETE")),
        **dict.fromkeys(APPENDED, ("SELECT", "INSERT")),
    }
    cells = 0
    for role in ROLES[1:]:
        for table, allowed in may.items():
            for kind in STATEMENTS:
                cells += 1
                passes = attempt(connection, role, statement_on(connection, kind, table)) != "denied"
                reads = kind == "SELECT" and role in ("jobtrail_ingest", "jobtrail_reader")
                writes = kind != "SELECT" and role == "jobtrail_ingest" and kind in allowed
                assert passes == (reads or writes), (role, kind, table)
    figures.set(cells=cells)


def test_each_function_may_be_called_by_its_role_alone(connection: Any, figures: Figures) -> None:
    functions = connection.execute(
        "SELECT oid, proname, proconfig, prosecdef FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    ).fetchall()
    cells = 0
    for role, expected in FUNCTIONS.items():
        allowed = {
            name
            for oid, name, _, _ in functions
            if connection.execute("SELECT has_function_privilege(%s, %s, 'EXECUTE')", (role, oid)).fetchone()[0]
        }
        cells += len(functions)
        assert allowed - OPEN_TO_ALL == expected, role
    for _, name, config, definer in functions:
        if definer:  # whoever calls it, it looks nowhere but where it should
            paths = [one for one in config or () if one.startswith("search_path=")]
            assert paths, name
            assert re.fullmatch(r"search_path=pg_catalog, public, pg_temp", paths[0]), (name, paths)
    figures.set(cells=cells)


def test_owner_and_superuser_are_stopped_by_every_trigger_of_every_partition(connection: Any, figures: Figures) -> None:
    """They can take the triggers away, which is found (T-46); by accident nothing is changed."""
    connection.execute("SELECT jobtrail_keep_partitions(40, NULL)")
    row = "'11111111-1111-1111-1111-111111111111', 1"
    connection.execute(f"INSERT INTO audit_payload VALUES ({row}, now(), 'p', 's')")
    connection.execute(f"INSERT INTO audit_payload VALUES ({row}, '1999-01-01', 'p', 's')")
    partitions = [name for name, _ in relations(connection, "^audit_payload")]
    assert len(partitions) >= 4
    cells = 0
    for role in ("jobtrail_owner", "postgres"):
        for table in (*partitions, "audit_log", "audit_conflict", "audit_checkpoint", "audit_checkpoint_leaf"):
            for setting in ("origin", "replica"):
                cells += 1
                connection.execute("BEGIN")
                try:
                    if role == "postgres":
                        connection.execute(f"SET LOCAL session_replication_role = {setting}".encode())
                    connection.execute(f"SET LOCAL ROLE {role}".encode())
                    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                        connection.execute(f"TRUNCATE {table} CASCADE".encode())
                finally:
                    connection.execute("ROLLBACK")
    figures.set(cells=cells)
