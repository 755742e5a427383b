"""How the tables lie on several machines: nothing without the extension citus, and with it what it is asked for.

No Citus is here: a stand-in extension of that name, made of SQL alone, writes down which calls were made. What holds
on the real schema all the same is checked from its catalogue: keys hold the column by which a table is distributed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobtrail.adapters.postgres import close_pool, keep_partitions, migrate, open_pool
from tests.postgres import PostgresServer

BY_JOB = ("jobs", "jobs_withdrawn", "job_nodes", "job_gpus", "job_samples", "energy_samples")
BY_NODE = ("gpu_samples",)  # a GPU without a job is read as well
BY_CHAIN = ("audit_chain", "audit_log", "audit_payload", "audit_conflict")
# Small, or looked at as a whole, or locked by what no chain's place is known for.
ON_THE_COORDINATOR = {
    "alembic_version", "nodes", "node_tokens", "security_log", "audit_checkpoint", "audit_checkpoint_leaf",
    "audit_seal",
    "audit_verification", "audit_hold", "audit_removed_run", "audit_permit", "audit_removing", "benchmark_metric_def",
    "benchmark_recipe", "benchmark_run", "benchmark_run_job", "benchmark_metric", "benchmark_energy",
    "benchmark_verdict", "benchmark_decision",
}  # fmt: skip
# create_distributed_table() and pg_dist_partition as https://docs.citusdata.com/en/stable/develop/api_udf.html and
# api_metadata.html have them. It refuses what Citus refuses:
# a table with a statement trigger or a key without the column.
STAND_IN = """
CREATE TABLE pg_dist_partition (
    logicalrelid regclass PRIMARY KEY, distribution_column text, colocated_with text, number serial, settings text[]
);
CREATE FUNCTION create_distributed_table(
    table_name regclass, distribution_column text, distribution_type text DEFAULT 'hash',
    colocate_with text DEFAULT 'default'
) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    IF EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal AND tgtype & 1 = 0 AND (tgrelid = table_name
               OR tgrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = table_name))) THEN
        RAISE EXCEPTION 'statement trigger on %', table_name;
    END IF;
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = table_name AND NOT tgisinternal)
       AND current_setting('citus.enable_unsafe_triggers', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION 'triggers are not supported on distributed tables: %', table_name;
    END IF;
    IF EXISTS (SELECT FROM pg_index i WHERE i.indrelid = table_name AND i.indisunique AND NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = table_name AND a.attname = distribution_column
            AND a.attnum = ANY (i.indkey::smallint[]))) THEN
        RAISE EXCEPTION 'cannot create constraint on %', table_name;
    END IF;
    INSERT INTO pg_dist_partition (logicalrelid, distribution_column, colocated_with, settings)
    VALUES (table_name, distribution_column, colocate_with,
            ARRAY[current_setting('citus.multi_shard_modify_mode', true)]);
END
$body$;
"""


@pytest.fixture
def stand_in(postgres_server: PostgresServer, empty_database: str) -> Iterator[str]:
    """The URL of an empty database in which `CREATE EXTENSION citus` makes the stand-in."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-stand-in-") as name:
        place = Path(name) / "extension"
        place.mkdir()
        control = "comment = 'stand-in of the tests'\ndefault_version = '0'\nschema = public\n"
        for file, text in ((place / "citus.control", control), (place / "citus--0.sql", STAND_IN)):
            file.write_text(text)
            file.chmod(0o644)
        for directory in (place, place.parent):
            directory.chmod(0o755)  # the server is another user where root starts it
        database = empty_database.partition("?")[0].rpartition("/")[2]
        # Where extensions are looked for, from PostgreSQL 18 on.
        postgres_server.execute(f"ALTER DATABASE {database} SET extension_control_path = '$system:{name}'")
        yield empty_database


def _plan(connection: psycopg.Connection[Any]) -> dict[str, tuple[str, str]]:
    rows = connection.execute(
        "SELECT logicalrelid::text, distribution_column, colocated_with FROM pg_dist_partition ORDER BY number"
    )
    return {table: (column, beside) for table, column, beside in rows}


def _tables(connection: psycopg.Connection[Any]) -> set[str]:
    """All but partitions."""
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition"
    )
    return {name for (name,) in rows}


def test_without_the_extension_nothing_is_done(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT jobtrail_distribute()").fetchone() == ([],)
        assert connection.execute("SELECT to_regclass('pg_dist_partition')").fetchone() == (None,)


def test_every_table_has_its_place(database: str) -> None:
    """One that is made later has to be thought of: here, and in jobtrail_distribute."""
    with psycopg.connect(database) as connection:
        assert _tables(connection) == {*BY_JOB, *BY_CHAIN, *BY_NODE} | ON_THE_COORDINATOR


@pytest.mark.parametrize(
    ("tables", "column", "kind"),
    [(BY_JOB, "job_id", "text"), (BY_CHAIN, "chain_id", "uuid"), (BY_NODE, "node", "text")],
)
def test_every_unique_key_holds_the_distribution_column(
    database: str, tables: tuple[str, ...], column: str, kind: str
) -> None:
    """And the column is of one type and never NULL, as rows that lie side by side need."""
    with psycopg.connect(database) as connection:
        for table in tables:
            found = connection.execute(
                "SELECT format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attrelid = %s::regclass"
                " AND attname = %s",
                (table, column),
            ).fetchone()
            assert found == (kind, True), table
            keys = connection.execute(
                "SELECT i.indexrelid::regclass::text, array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a"
                " ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::smallint[])"
                " WHERE i.indrelid = %s::regclass AND i.indisunique GROUP BY 1",
                (table,),
            ).fetchall()
            assert all(column in columns for _, columns in keys), (table, keys)


def test_no_foreign_key_leads_from_or_to_a_distributed_table(database: str) -> None:
    """Citus allows them only along the distribution column or to reference tables."""
    with psycopg.connect(database) as connection:
        keys = connection.execute(
            "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
        ).fetchall()
    assert keys
    assert not {table for key in keys for table in key} & {*BY_JOB, *BY_CHAIN, *BY_NODE}


def test_with_the_extension_the_migration_distributes(stand_in: str) -> None:
    """Calls in an order in which the table that others lie beside is first, and once only."""
    with psycopg.connect(stand_in, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION citus")
        migrate.upgrade(stand_in)
        plan = _plan(connection)
        assert plan == {
            **{table: ("job_id", "none" if table == "jobs" else "public.jobs") for table in BY_JOB},
            **{table: ("chain_id", "none" if table == "audit_chain" else "public.audit_chain") for table in BY_CHAIN},
            "gpu_samples": ("node", "none"),
        }
        assert list(plan).index("jobs") < list(plan).index("job_nodes")
        assert list(plan).index("audit_chain") < list(plan).index("audit_log")
        modes = connection.execute("SELECT DISTINCT settings FROM pg_dist_partition").fetchall()
        assert modes == [(["sequential"],)]
        assert connection.execute("SELECT jobtrail_distribute()").fetchone() == ([],)


async def test_an_extension_that_comes_later_is_used_when_asked(stand_in: str) -> None:
    """Row triggers stay, so that the trail refuses changes; new partitions get no trigger that Citus would refuse."""
    migrate.upgrade(stand_in)
    with psycopg.connect(stand_in, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION citus")
        (done,) = connection.execute("SELECT jobtrail_distribute()").fetchone() or ([],)
        assert set(done) == {*BY_JOB, *BY_CHAIN, *BY_NODE}
        statement = connection.execute(
            "SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal AND tgtype & 1 = 0"
        ).fetchall()
        assert not {table for (table,) in statement} & {*BY_CHAIN}
        rows = connection.execute(
            "SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal AND tgtype & 1 = 1"
            " AND tgenabled = 'A'"
        ).fetchall()
        assert {"audit_log", "audit_payload", "audit_conflict"} <= {table for (table,) in rows}
    pool = await open_pool(stand_in, size=1, timeout_seconds=10.0)
    try:
        made, _ = await keep_partitions(pool, days_ahead=70, retention_days=None, timeout_seconds=10.0)
        assert made > 60
    finally:
        await close_pool(pool, timeout_seconds=5.0)
    with psycopg.connect(stand_in) as connection:
        new = connection.execute(
            "SELECT count(*) FROM pg_trigger WHERE tgrelid::regclass::text ~ '^audit_payload_[0-9]' AND tgtype & 1 = 0"
            " AND NOT tgisinternal"
        ).fetchone()
        assert new == (0,)


def test_only_the_owner_distributes(database: str) -> None:
    with psycopg.connect(database) as connection:
        allowed = connection.execute(
            "SELECT has_function_privilege('jobtrail_ingest', 'jobtrail_distribute()', 'EXECUTE')"
        ).fetchone()
    assert allowed == (False,)
