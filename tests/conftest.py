"""Fixtures every test may use."""

from tests.postgres import database, empty_database, pool, postgres_server

__all__ = ["database", "empty_database", "pool", "postgres_server"]
