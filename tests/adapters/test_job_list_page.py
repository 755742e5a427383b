"""The table of `jobtrail jobs list` in terminals of several widths."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from jobtrail.cli.jobs import print_jobs

START = datetime(2026, 11, 21, 8, tzinfo=UTC)
JOB = {
    "job_id": "local-1795298728991478", "run": 1, "cluster_name": "local", "user_name": "ada", "job_name": "train",
    "state": "completed", "state_confirmed": True, "verdict": "completed", "exit_code": 0, "exit_signal": None,
    "start_time": START, "end_time": START + timedelta(hours=30), "cpu_seconds": 3600.0, "memory_peak_bytes": 1 << 30,
}  # fmt: skip


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (45, ["job", "how", "ran"]),
        (79, ["job", "how", "ran"]),
        (90, ["job", "user", "name", "how", "exit", "ran", "cpu", "peak", "memory"]),
    ],
)
def test_a_narrow_terminal_has_fewer_columns_and_those_whole(width: int, columns: list[str]) -> None:
    out = io.StringIO()
    print_jobs(Console(file=out, width=width), [JOB])
    heading, row = out.getvalue().splitlines()
    assert heading.split() == columns
    assert "…" not in row
    assert row.startswith("local-1795298728991478")
    assert "30:00:00" in row
