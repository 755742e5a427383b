"""A real PostgreSQL for tests: one server a session, one fresh migrated database a test.

Import the fixtures in a conftest: `from tests.postgres import database, empty_database, pool, postgres_server`.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import close_pool, migrate, open_pool
from jobtrail.domain.errors import ConfigError
from tests.requirements import unmet

TEMPLATE = "jobtrail_template"
# ANALYZE looks at 300 rows of a table, drawn by chance, for each unit of the largest target of its columns: here at all
# of them, so that plans are the same each time. Meant for a column of few values, to which a larger target makes no
# difference.
EVERY_ROW = "ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 10000"
TIMEOUT_SECONDS = 60.0  # a test that needs a short one opens a pool of its own


class PostgresServer:
    """The session's server."""

    def __init__(self, data_dir: Path, url: str) -> None:
        self.data_dir = data_dir
        self._url = url
        self._count = 0

    def url(self, database: str, user: str = "postgres") -> str:
        """The URL of one of the server's databases."""
        return self._url.replace("//postgres@/jobtrail?", f"//{user}@/{database}?")

    def create_database(self, template: str) -> str:
        """A new database; its name."""
        self._count += 1
        name = f"test_{self._count}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database with whatever is connected to it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement outside of any test's database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def postmaster_pid(self) -> int:
        """The server's main process."""
        return int((self.data_dir / "postmaster.pid").read_text().splitlines()[0])


def quieten(server: PostgresServer) -> None:
    """Tests need no safety from power cuts, and are faster without."""
    for setting in ("fsync", "full_page_writes"):
        server.execute(f"ALTER SYSTEM SET {setting} = off")
    server.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server, with a migrated database to copy."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-pg-") as directory:
        data_dir = Path(directory) / "data"
        try:
            url = embedded_postgres.start(data_dir)
        except ConfigError as error:
            unmet(str(error))
        try:
            server = PostgresServer(data_dir, url)
            quieten(server)
            server.execute(f"CREATE DATABASE {TEMPLATE}")
            migrate.upgrade(server.url(TEMPLATE))
            yield server
        finally:
            embedded_postgres.stop(data_dir)


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh migrated database."""
    name = postgres_server.create_database(TEMPLATE)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh database without tables."""
    name = postgres_server.create_database("template1")
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Any]:
    """A connection pool on a fresh migrated database."""
    opened = await open_pool(database, size=8, timeout_seconds=TIMEOUT_SECONDS)
    yield opened
    await close_pool(opened, timeout_seconds=5.0)
