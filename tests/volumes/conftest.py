"""The year of a cluster, loaded once for all tests here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.postgres import TEMPLATE, PostgresServer
from tests.requirements import unmet
from tests.volumes.load import load

NEEDED_BYTES = 10 * 1024**3  # 4 GB of tables and indexes, the log of writing them, and room to sort


@pytest.fixture(scope="session")
def year(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of the loaded database."""
    free = shutil.disk_usage(postgres_server.data_dir).free
    if free < NEEDED_BYTES:
        unmet(f"{NEEDED_BYTES >> 30} GiB of disk for {postgres_server.data_dir}, {free >> 30} GiB are free")
    name = postgres_server.create_database(TEMPLATE)
    try:
        load(postgres_server.url(name))
        yield postgres_server.url(name)
    finally:
        postgres_server.drop_database(name)


@pytest.fixture
def connection(year: str) -> Iterator[Any]:
    """A connection to it as its owner."""
    with psycopg.connect(year, autocommit=True, prepare_threshold=None) as opened:
        opened.execute("SET timezone = 'UTC'")
        yield opened
