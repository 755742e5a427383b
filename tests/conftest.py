"""Fixtures every test may use; and how hypothesis runs: the same examples every time in CI, other ones elsewhere."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import database, empty_database, pool, postgres_server

__all__ = ["database", "empty_database", "pool", "postgres_server", "pytest_configure"]

# Here, and not beside those tests that use it most: a test has the profile that is loaded when its module is imported.
settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach what tests start: a shell starts what it puts in the background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
