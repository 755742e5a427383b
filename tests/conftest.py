"""Fixtures every test may use."""

import signal

import pytest

from tests.postgres import database, empty_database, pool, postgres_server

__all__ = ["database", "empty_database", "pool", "postgres_server", "pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach what tests start: a shell starts what it puts in the background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
