"""Commands whose output nobody takes, or that are broken off: one line at most, an exit code, no traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from tests.daemon_process import REPOSITORY, wait_until

COMMAND = [sys.executable, "-m", "jobtrail"]
PRINTING = ("--help", "bench list", "bench list --json", "migrate --sql", "import-sacct --command")
ASKING = ("jobs list", "jobs show 9", "report 9", "audit log 9", "bench runs", "top", "jobs withdraw manual-x")
FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="jobtrail-misused-") as name,
        embedded_postgres.running(Path(name) / "postgres") as url,
    ):
        migrate.upgrade(url)
        yield url


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBTRAIL_")}
    path = os.pathsep.join(filter(None, (str(REPOSITORY / "daemon"), os.environ.get("PYTHONPATH"))))
    settings = tmp_path / "empty.yaml"
    settings.touch()
    return {**kept, "PYTHONPATH": path, "JOBTRAIL_CONFIG": str(settings), "JOBTRAIL_HTTP__PORT": "0"}


@pytest.mark.parametrize("command", [*PRINTING, "audit export", "jobs list", "audit rebuild --check"])
def test_a_reader_that_has_enough_ends_it_in_silence(command: str, environment: dict[str, str], database: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, *command.split()],
            stdout=pipe,
            stderr=subprocess.PIPE,
            env={**environment, "DATABASE_URL": database},
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", [*PRINTING, "audit export", "jobs list"])
def test_a_full_disk_is_told(command: str, environment: dict[str, str], database: str) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**environment, "DATABASE_URL": database},
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("cannot be written: No space left on device")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_output_is_none(closed: int, environment: dict[str, str]) -> None:
    script = f'exec "$@" {closed}>&-'
    words = ["sh", "-c", script, "sh", *COMMAND, "bench", "list"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed == 2)


@pytest.mark.parametrize("command", ASKING)
def test_ctrl_c_while_nobody_answers(command: str, environment: dict[str, str], tmp_path: Path) -> None:
    path = str(tmp_path / "hangs.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.setblocking(False)
        words = [*COMMAND, *command.split(), "--url", path]
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:

            def asked() -> socket.socket | None:
                try:
                    return server.accept()[0]
                except BlockingIOError:
                    return None

            with wait_until(asked, "the command to connect"):
                one.send_signal(signal.SIGINT)
                told, problem = one.communicate(timeout=60)
    assert (one.returncode, told) == (130, "")
    assert problem.strip() in ("Aborted.", "")


def test_what_cannot_be_undone_is_not_done_where_nobody_can_be_asked(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, "audit", "erase", "--user", "bob", "--basis", "request"], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "everything that is said of bob" in done.stderr
    assert "--yes" in done.stderr


def test_a_time_that_is_none_is_told_with_the_forms_there_are(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, "audit", "prune", "--before", "foo"],
        stderr=subprocess.PIPE, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "'foo' is not a time such as" in " ".join(done.stderr.split())
