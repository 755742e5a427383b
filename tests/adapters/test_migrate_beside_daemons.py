"""A migration below daemons that write: where the two wait for each other for ever, the migration begins anew."""

import threading

import psycopg
import pytest

from jobtrail.adapters.postgres import migrate
from jobtrail.domain.errors import StoreUnavailable
from tests.daemon_process import wait_until

BEFORE_ONE_THAT_CHANGES_JOBS = "0009"
WAITED_FOR = (
    "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
HELD = (
    "SELECT relation::regclass::text FROM pg_locks WHERE granted AND pid = %s AND mode = 'AccessExclusiveLock'"
    " AND relation IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace)"
)


def test_a_deadlock_with_a_writer_costs_the_migration_a_second_try(database: str) -> None:
    """PostgreSQL ends the migration's transaction, since the writer is more patient; the schema comes all the same."""
    newest = migrate.head()
    migrate.downgrade(database, BEFORE_ONE_THAT_CHANGES_JOBS)
    failed: list[BaseException] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(database)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    with psycopg.connect(database) as writer, psycopg.connect(database, autocommit=True) as watcher:
        writer.execute("SET deadlock_timeout = '1min'")
        writer.execute("LOCK TABLE jobs IN ACCESS SHARE MODE")
        other = threading.Thread(target=upgrade)
        other.start()
        (pid,) = wait_until(lambda: watcher.execute(WAITED_FOR).fetchone(), "the migration to wait", timeout_seconds=60)
        held = [name for (name,) in watcher.execute(HELD, (pid,)).fetchall()]
        assert held, "the migration holds a table that the writer can ask for"
        writer.execute(f"LOCK TABLE {held[0]} IN ACCESS SHARE MODE".encode())
        writer.commit()
        other.join(120)
        assert not other.is_alive()
    assert failed == []
    assert migrate.current(database) == newest


def test_who_keeps_the_tables_in_use_is_named(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a verification or a backup does, for all its time; what was applied stays, and a later try goes on."""
    newest = migrate.head()
    migrate.downgrade(database, BEFORE_ONE_THAT_CHANGES_JOBS)
    with psycopg.connect(database, application_name="pg_dump") as reader, monkeypatch.context() as impatient:
        impatient.setattr(migrate, "LOCK_TIMEOUT", "200ms")
        reader.execute("SELECT FROM audit_chain")
        told = rf"in use for 200ms, by (.*; )?pg_dump of \w+ \(pid {reader.info.backend_pid}, for \d+ s\)"
        with pytest.raises(StoreUnavailable, match=told):
            migrate.upgrade(database)
    migrate.upgrade(database)
    assert migrate.current(database) == newest
