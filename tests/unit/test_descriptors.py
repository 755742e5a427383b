"""Connections share the descriptors a process may have: TCP gets what nodes need, local sockets enough for hooks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jobtrail.composition.descriptors import MOST_LOCAL, RESERVED
from tests.daemon_process import REPOSITORY

ASK = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (100, int(sys.argv[2])));"
    "from jobtrail.composition.descriptors import connections_that_fit;"
    "print(*connections_that_fit(int(sys.argv[1])), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
)


@pytest.mark.parametrize(
    ("wanted", "limit", "remote", "local"),
    [
        (256, 4_096, 256, 256),
        (10_200, 20_000, 10_200, MOST_LOCAL),
        (10_200, 12_000, 12_000 - RESERVED - 2 * MOST_LOCAL, MOST_LOCAL),
        (256, 340, 100, 100),
        (256, 100, 20, 20),
    ],
)
def test_what_fits(wanted: int, limit: int, remote: int, local: int) -> None:
    """The limit is raised as far as it may be; then TCP, where a server has its nodes, takes what there is."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(wanted), str(limit)],
        cwd=REPOSITORY / "daemon", capture_output=True, text=True, check=True,
    )  # fmt: skip
    given = [int(word) for word in done.stdout.split()]
    assert given == [remote, local, min(limit, max(100, RESERVED + wanted + 2 * min(wanted, MOST_LOCAL)))]
    assert given[0] + 2 * given[1] + RESERVED <= limit
