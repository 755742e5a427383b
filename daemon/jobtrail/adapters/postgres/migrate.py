"""Brings a database to the schema this release needs. The only module that loads Alembic, SQLAlchemy and psycopg."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from alembic import command, op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

import jobtrail
from jobtrail.domain.errors import ConfigError, StoreUnavailable

Progress = Callable[[str, str], None]  # revision, what it does
MIGRATION_LOCK = (19028, -2)  # an advisory lock: two migrations of one database run one after the other
LOCK_TIMEOUT = "10s"
DEADLOCK_TRIES = 5
# Whoever writes the trail begins with its chain's row, in every release. A revision that begins with the same table
# waits until nobody writes and lets nobody begin: it cannot come between two tables of a writer, which is a deadlock.
KEEP_WRITERS_OUT = """DO $$ BEGIN
    IF to_regclass('public.audit_chain') IS NOT NULL THEN
        LOCK TABLE public.audit_chain IN ACCESS EXCLUSIVE MODE;
    END IF;
END $$;
"""
# Who keeps tables from being changed, the longest first: locks of tables are held until the transaction ends.
HOLDERS = """
    SELECT pid, coalesce(nullif(application_name, ''), backend_type), coalesce(usename, 'the server itself'),
           extract(epoch FROM clock_timestamp() - xact_start)::int
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
      AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_stat_activity.pid AND l.granted AND l.relation IN (
          SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace))
    ORDER BY xact_start LIMIT 3
"""
CONNECT_TIMEOUT_SECONDS = 10


def upgrade(url: str, revision: str = "head", progress: Progress | None = None) -> None:
    """Apply all revisions up to `revision`, each in its own transaction; `progress` hears of each one applied.

    Raises StoreUnavailable when the database cannot be reached or its locks not be had, ConfigError for an unknown
    revision.
    """
    _beside_daemons(url, lambda connection: command.upgrade(_config(connection, progress), revision))


def downgrade(url: str, revision: str, progress: Progress | None = None) -> None:
    """Undo revisions down to `revision`; `base` removes every table, the audit trail with them. Raises as `upgrade`."""
    _beside_daemons(url, lambda connection: command.downgrade(_config(connection, progress), revision))


def _beside_daemons(url: str, work: Callable[[sqlalchemy.Connection], None]) -> None:
    """Do `work`, anew where PostgreSQL ended it to resolve a deadlock with a daemon that writes.

    Each revision is a transaction of its own, so what was undone is whole revisions, and the rest goes on from there.
    """
    for tries_left in reversed(range(DEADLOCK_TRIES)):
        try:
            with _connection(url) as connection:
                work(connection)
            return
        except StoreUnavailable as error:
            if not tries_left or not isinstance(_driver_error(error), psycopg.errors.DeadlockDetected):
                raise


def _driver_error(error: StoreUnavailable) -> BaseException | None:
    cause = error.__cause__
    return cause.orig if isinstance(cause, sqlalchemy.exc.DBAPIError) else cause


def current(url: str) -> str | None:
    """The revision the database is at, None for one never migrated. Raises StoreUnavailable."""
    with _connection(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """The newest revision this release knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def sql(revision: str = "head") -> str:
    """What `upgrade` would run, for an administrator to run by hand; `revision` may be a range such as `0001:head`."""
    config = _config()
    output = io.StringIO()
    config.output_buffer = output
    output.write(f"SET lock_timeout = '{LOCK_TIMEOUT}';\n\n")
    try:
        command.upgrade(config, revision if ":" in revision else f"base:{revision}", sql=True)
    except CommandError as error:
        raise ConfigError("revision", str(error)) from error
    return output.getvalue()


def run_sql_file(name: str) -> None:
    """Run, or print in offline mode, a file of `migrations/sql`, with no writer of the trail beside it. For revisions
    only.
    """
    text = KEEP_WRITERS_OUT + (scripts_directory() / "sql" / name).read_text(encoding="utf-8")
    context = op.get_context()
    if context.as_sql:
        assert context.output_buffer is not None
        context.output_buffer.write(text + "\n")
        return
    connection = context.connection
    assert connection is not None
    # Straight to the driver: SQLAlchemy would take `:name` and `%` in function bodies for parameters.
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    driver.execute(text.encode())


def scripts_directory() -> Path:
    """Where the revisions are: beside the package in an installed wheel, else at the top of the source tree."""
    package = Path(jobtrail.__file__).resolve().parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent.parent / "migrations"


def _config(connection: sqlalchemy.Connection | None = None, progress: Progress | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection

    def on_version_apply(*, step: Any, **_: object) -> None:
        if progress is not None:
            verb = "" if step.is_upgrade else "undone: "
            progress(step.up_revision_id, verb + step.up_revision.doc)

    config.attributes["on_version_apply"] = on_version_apply
    return config


@contextmanager
def _connection(url: str) -> Iterator[sqlalchemy.Connection]:
    """One connection, holding the migration lock. psycopg reads `url`, so every form libpq knows is allowed."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_SECONDS),
        poolclass=sqlalchemy.NullPool,
    )
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            connection.execute(
                sqlalchemy.text("SELECT pg_advisory_lock(:one, :two)"),
                dict(zip(("one", "two"), MIGRATION_LOCK, strict=True)),
            )
            connection.commit()
            yield connection
    except (sqlalchemy.exc.DBAPIError, psycopg.Error) as error:
        own = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
        held = isinstance(own, psycopg.errors.LockNotAvailable)
        why = _holders(url) if held else _first_line(own)
        raise StoreUnavailable(f"the database cannot be migrated: {why}") from error
    except CommandError as error:
        raise ConfigError("revision", str(error)) from error


def _holders(url: str) -> str:
    """That a lock was not to be had, and who has it."""
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_SECONDS) as connection:
            holders = connection.execute(HOLDERS).fetchall()
    except psycopg.Error:  # then without their names
        holders = []
    named = "; ".join(f"{name} of {user} (pid {pid}, for {age} s)" for pid, name, user, age in holders)
    return (
        f"its tables were in use for {LOCK_TIMEOUT}, by {named or 'another migration, or who has ended since'}. "
        "Wait until that is over, or end it with pg_terminate_backend, and try again; what was applied so far stays"
    )


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
