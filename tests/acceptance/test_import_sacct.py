"""`jobtrail import-sacct` on a real database: what it stores, that twice is once, and how it says no."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from jobtrail.adapters.sacct.printed import COMMAND
from tests.adapters.sacct_prints import job_row, step_row
from tests.adapters.test_sacct_printed import ended
from tests.daemon_process import REPOSITORY
from tests.postgres import database, postgres_server

__all__ = ["database", "postgres_server"]

JOBS = [
    job_row(7), step_row(7),
    job_row(8, State="CANCELLED by 0", Submit="1795260300", Start="1795260301", End="1795260400"),
    job_row(9, State="RUNNING", Submit="1795260300", Start="1795260301", End="Unknown"),
]  # fmt: skip


def import_sacct(url: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command on a database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBTRAIL_")}
    environment = {**kept, "PYTHONPATH": str(REPOSITORY / "daemon"), "DATABASE_URL": url, "NO_COLOR": "1"}
    argv = [sys.executable, "-m", "jobtrail", "import-sacct", *arguments]
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=False, env=environment, timeout=60)


def rows(url: str, query: str) -> list[dict[str, Any]]:
    """Rows of a query."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(query.encode()).fetchall()


def test_past_jobs_are_brought_in_once(database: str, tmp_path: Path) -> None:
    file = tmp_path / "jobs"
    file.write_text(ended(JOBS))
    done = import_sacct(database, str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "2 jobs brought in", "0 known jobs told more of", "0 known already", "1 not over yet, left to the daemon",
    ]  # fmt: skip
    jobs = rows(database, "SELECT * FROM jobs ORDER BY job_id")
    told = [(one["cluster_name"], one["job_id"], one["state"], one["verdict"], one["user_name"]) for one in jobs]
    assert told == [
        ("lab", "slurm-7", "completed", "completed", "alice"),
        ("lab", "slurm-8", "cancelled", "cancelled", "alice"),
    ]
    assert jobs[0]["start_time"].timestamp() == 1795260228
    assert jobs[0]["sample_count"] in (0, None), "no sample is made up"
    trail = rows(database, "SELECT DISTINCT changed_by, source FROM job_audit_events WHERE job_id IS NOT NULL")
    assert trail == [{"changed_by": "cli", "source": "sacct-import"}]
    before = rows(database, "SELECT count(*) AS n FROM audit_log WHERE job_id IS NOT NULL")
    again = import_sacct(database, "-", text=ended(JOBS))
    assert again.stdout.splitlines()[:3] == ["0 jobs brought in", "0 known jobs told more of", "2 known already"]
    assert rows(database, "SELECT count(*) AS n FROM audit_log WHERE job_id IS NOT NULL") == before


def test_the_trail_holds_all_that_is_needed_to_make_the_jobs_again(database: str) -> None:
    import_sacct(database, "-", text=ended(JOBS))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "daemon"), "DATABASE_URL": database}
    argv = [sys.executable, "-m", "jobtrail", "audit", "rebuild", "--check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert done.returncode == 0, done.stdout


def test_two_runs_of_a_requeued_job_are_two(database: str) -> None:
    runs = [
        job_row(7, State="REQUEUED", Submit="1795260000", Start="1795260010", End="1795260100"),
        job_row(7, Submit="1795260100", Start="1795260200", End="1795260300"),
    ]
    assert import_sacct(database, "-", text=ended(runs)).returncode == 0
    found = rows(database, "SELECT run, verdict FROM jobs ORDER BY start_time")
    assert [one["verdict"] for one in found] == ["requeued", "completed"]
    again = import_sacct(database, "-", text=ended(runs))
    assert "2 known already" in again.stdout


def test_a_dry_run_stores_nothing(database: str) -> None:
    done = import_sacct(database, "-", "--dry-run", text=ended(JOBS))
    assert done.stdout.splitlines()[0] == "2 jobs would be brought in"
    assert rows(database, "SELECT count(*) AS n FROM audit_log") == [{"n": 0}]


def test_what_cannot_be_read_is_named_and_the_rest_is_stored(database: str) -> None:
    done = import_sacct(database, "-", text=ended([job_row(7), job_row(8, Start="2026-01-01T00:00:00")]))
    assert done.returncode == 1
    assert "not read: row 2 Start must be a whole number" in done.stderr
    assert "1 job brought in" in done.stdout


def test_the_cluster_must_be_known(database: str) -> None:
    without = ended([{**job_row(7), "Cluster": ""}])
    refused = import_sacct(database, "-", text=without)
    assert refused.returncode == 2
    assert "say --cluster NAME" in refused.stderr
    assert import_sacct(database, "-", "--cluster", "west", text=without).returncode == 0
    assert rows(database, "SELECT cluster_name FROM jobs") == [{"cluster_name": "west"}]


@pytest.mark.parametrize("text", ["", "JobID|State\n7|COMPLETED\n"])
def test_another_file_is_refused_with_the_command_that_makes_one(database: str, text: str) -> None:
    done = import_sacct(database, "-", text=text)
    assert done.returncode == 2
    assert COMMAND in done.stderr


def test_the_command_is_printed_as_it_is() -> None:
    assert import_sacct("", "--command").stdout == COMMAND + "\n"


def test_a_database_that_is_away_has_its_own_exit_code(tmp_path: Path) -> None:
    done = import_sacct(f"postgresql://nobody@/none?host={tmp_path}", "-", text=ended(JOBS))
    assert done.returncode == 3
