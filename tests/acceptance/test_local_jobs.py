"""`jobtrail exec` against the real daemon and a real PostgreSQL, and the commands that show what was recorded."""

from __future__ import annotations

import json
import os
import re
import shutil
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
from tests.daemon_process import REPOSITORY, Daemon, wait_until
from tests.requirements import require_root

BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: sum(range(20000))"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-local-"))
    directory.chmod(0o755)
    try:
        with embedded_postgres.running(directory / "postgres") as url:
            migrate.upgrade(url)
            with Daemon(
                directory / "daemon",
                scheduler="local",
                database={"url": url},
                sampling={"interval_seconds": 0.5},
            ) as running:
                yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _exec(daemon: Daemon, *command: str, options: tuple[str, ...] = ()) -> tuple[int, dict[str, object], str]:
    """Exit code, printed usage and standard output of an observed command."""
    done = daemon.cli("exec", "--json", *options, "--", *command, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
    return done.returncode, json.loads(lines[-1]), done.stdout


def _job(daemon: Daemon, job_id: object) -> dict[str, object]:
    """The job's row once its final usage is stored."""

    def settled() -> dict[str, object] | None:
        done = daemon.cli("audit", "log", str(job_id), "--json", check=False)
        kinds = [row["event"]["kind"] for row in json.loads(done.stdout or "[]")]
        if not {"job_finished", "usage_recorded"} <= set(kinds):
            return None
        return dict(json.loads(daemon.cli("jobs", "show", str(job_id), "--json").stdout)["job"])

    return wait_until(settled, f"the end of {job_id}; log:\n{daemon.tail()}", every_seconds=0.2)


def test_a_local_job_is_measured_like_any_other(daemon: Daemon) -> None:
    """Two seconds of CPU: printed, stored and audited alike."""
    code, usage, _ = _exec(daemon, sys.executable, "-c", BURN.format(seconds=2), options=("--name", "burn"))
    assert code == 0
    assert usage["recorded"] is True
    job = _job(daemon, usage["job_id"])
    assert (job["state"], job["verdict"], job["state_confirmed"]) == ("completed", "completed", True)
    assert job["job_name"] == "burn"
    assert job["cpu_seconds"] == pytest.approx(usage["cpu_seconds"], rel=0.05)
    assert job["cpu_seconds"] == pytest.approx(2.0, rel=0.1)
    assert job["sample_count"] >= 3


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_of_the_command_is_passed_through(daemon: Daemon, code: int) -> None:
    """And stored; a failing command is failed, one that exits 0 completed, because its parent knows."""
    returned, usage, _ = _exec(daemon, "sh", "-c", f"exit {code}")
    assert (returned, usage["exit_code"]) == (code, code)
    job = _job(daemon, usage["job_id"])
    assert (job["state"], job["exit_code"]) == ("completed" if code == 0 else "failed", code)


def test_a_signal_is_passed_through_as_128_plus_its_number(daemon: Daemon) -> None:
    """SIGKILL gives 137, as a shell would."""
    returned, usage, _ = _exec(daemon, "sh", "-c", "kill -KILL $$")
    assert (returned, usage["exit_signal"], usage["exit_code"]) == (128 + signal.SIGKILL, signal.SIGKILL, None)
    job = _job(daemon, usage["job_id"])
    assert (job["verdict"], job["exit_signal"]) == ("killed_by_signal", signal.SIGKILL)


def test_standard_output_belongs_to_the_command(daemon: Daemon) -> None:
    """Nothing of ours is mixed into it."""
    _, _, output = _exec(daemon, "printf", "exactly this")
    assert output == "exactly this"


def test_a_missing_command_says_so_with_the_shells_code(daemon: Daemon) -> None:
    """127 and the name."""
    done = daemon.cli("exec", "--", "no-such-command-here", check=False)
    assert done.returncode == 127
    assert "no-such-command-here: command not found" in done.stderr


def test_a_file_that_cannot_run_gives_126(daemon: Daemon, tmp_path: Path) -> None:
    """Found, not executable."""
    (tmp_path / "plain").write_text("no program")
    done = daemon.cli("exec", "--", str(tmp_path / "plain"), check=False)
    assert done.returncode == 126


def test_without_a_daemon_the_command_runs_and_the_loss_is_said(daemon: Daemon, tmp_path: Path) -> None:
    """Its own exit code, and a line that nothing was recorded; --require-daemon refuses instead."""
    environment = {**daemon.environment(), "JOBTRAIL_SOCKET": str(tmp_path / "nobody.sock")}
    command = [sys.executable, "-m", "jobtrail", "exec"]
    done = subprocess.run(
        [*command, "--", "sh", "-c", "exit 5"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert "not recorded" in done.stderr
    refused = subprocess.run(
        [*command, "--require-daemon", "--", "true"], env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 3
    assert "nobody.sock" in refused.stderr


AS_USER = """
import asyncio, os, sys
import jobtrail.cli.daemon_client, jobtrail.cli.exec, jobtrail.cli.own_usage
from jobtrail.__main__ import main
from jobtrail.cli.commands import application
from pwd import getpwnam
from typer.testing import CliRunner
CliRunner().invoke(application, ["exec", "--json", "--", "no-such-command"])  # loads what is loaded when used
user = getpwnam(sys.argv.pop(1))
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
sys.argv[0] = "jobtrail"
main()
"""
SHELL_BURN = "i=0; while [ $i -lt 600000 ]; do i=$((i+1)); done"


def test_an_ordinary_user_runs_observed_jobs_from_the_process_tree(daemon: Daemon) -> None:
    """No own cgroup: the process tree from /proc, and it is said. The user is the one who connected."""
    require_root("starts a command as another user")
    daemon.config.chmod(0o644)
    daemon.socket.chmod(0o666)
    # Loaded as root and then demoted, because the interpreter may lie where other users cannot read.
    done = subprocess.run(
        [sys.executable, "-c", AS_USER, "daemon", "exec", "--json", "--", "sh", "-c", SHELL_BURN],
        env=daemon.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert lines, done.stderr
    usage = json.loads(lines[-1])
    assert usage["recorded"] is True, done.stderr
    assert str(usage["observed_by"]).startswith("process tree")
    job = _job(daemon, usage["job_id"])
    assert (job["user_name"], job["state"]) == ("daemon", "completed")
    assert job["cpu_seconds"] == pytest.approx(usage["cpu_seconds"], rel=0.1, abs=0.05)


def test_a_user_who_may_not_connect_is_told_what_an_administrator_can_do() -> None:
    """The socket is root's on an installed node."""
    require_root("starts a command as another user")
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        Path(place).chmod(0o755)
        listener.bind(f"{place}/hooks.sock")
        listener.listen()
        Path(f"{place}/hooks.sock").chmod(0o660)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBTRAIL_")}
        done = subprocess.run(
            [sys.executable, "-c", AS_USER, "daemon", "exec", "--", "sh", "-c", "exit 6"],
            env={**kept, "PYTHONPATH": str(REPOSITORY / "daemon"), "JOBTRAIL_SOCKET": f"{place}/hooks.sock"},
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 6, done.stderr
    said = f"not recorded: no daemon answers on {place}/hooks.sock: Permission denied"
    assert f"{said}; an administrator lets you by naming a group of yours in http.socket_group" in done.stderr


def test_a_user_who_may_not_read_the_settings_runs_observed_jobs() -> None:
    """The node's settings hold a password; what `exec` needs of them is at its usual place."""
    require_root("starts a command as another user")
    with tempfile.TemporaryDirectory() as place:  # pytest's own lie where other users cannot look
        Path(place).chmod(0o755)
        (Path(place) / ".jobtrail").mkdir(mode=0o755)
        secret = Path(place) / ".jobtrail" / "jobtrail.yaml"
        secret.write_text("scheduler: local\n", encoding="utf-8")
        secret.chmod(0o600)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBTRAIL_")}
        done = subprocess.run(
            [sys.executable, "-c", AS_USER, "daemon", "exec", "--", "sh", "-c", "exit 6"],
            env={**kept, "PYTHONPATH": str(REPOSITORY / "daemon"), "JOBTRAIL_SOCKET": f"{place}/none.sock"},
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 6, done.stderr
    assert "exit code 6" in done.stderr


def test_jobs_are_listed_shown_and_filtered(daemon: Daemon) -> None:
    """Tables for people name the job, its state and its exit code; unknown ids end with code 4."""
    _, usage, _ = _exec(daemon, "sh", "-c", "exit 9", options=("--name", "nine"))
    _job(daemon, usage["job_id"])
    listed = daemon.cli("jobs", "list", "--state", "failed", "--since", "1h").stdout
    assert re.search(rf"{usage['job_id']} .*nine .*failed", listed)
    shown = daemon.cli("jobs", "show", str(usage["job_id"])).stdout
    assert "exit code 9" in shown
    unknown = daemon.cli("jobs", "show", "local-1", check=False)
    assert (unknown.returncode, "local-1" in unknown.stderr) == (4, True)
    wrong = daemon.cli("jobs", "list", "--since", "yesterday-ish", check=False)
    assert wrong.returncode == 2
    assert "7d" in wrong.stderr


def test_a_hostile_job_name_is_shown_harmlessly(daemon: Daemon) -> None:
    """Escape sequences reach neither the terminal nor the metrics page raw."""
    name = "evil\x1b[31m\n[bold]name"
    _, usage, _ = _exec(daemon, "true", options=("--name", name))
    job = _job(daemon, usage["job_id"])
    assert job["job_name"] == name
    shown = daemon.cli("jobs", "show", str(usage["job_id"])).stdout
    assert "\x1b" not in shown
    assert r"evil\x1b[31m\n[bold]name" in shown


def test_the_trail_reproduces_the_jobs_and_finds_a_forged_row(daemon: Daemon) -> None:
    """`audit rebuild --check` is content, then finds a value that somebody changed by hand."""
    import psycopg
    import yaml

    _, usage, _ = _exec(daemon, "true")
    _job(daemon, usage["job_id"])
    assert json.loads(daemon.cli("audit", "rebuild", "--check", "--json").stdout)["differing"] == 0
    url = yaml.safe_load(daemon.config.read_text())["database"]["url"]
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE jobs SET exit_code = 77 WHERE job_id = %s", [usage["job_id"]])
    done = daemon.cli("audit", "rebuild", "--check", "--json", check=False)
    assert done.returncode == 1
    differences = json.loads(done.stdout)["differences"]
    assert [(one["job_id"], one["field"], one["stored"]) for one in differences] == [(usage["job_id"], "exit_code", 77)]
    daemon.cli("audit", "rebuild", "--yes")
    assert json.loads(daemon.cli("audit", "rebuild", "--check", "--json").stdout)["differing"] == 0


def test_migrate_is_idempotent_and_prints_its_sql(daemon: Daemon) -> None:
    """A second run changes nothing; --check agrees; --sql needs no database."""
    assert "up to date" in daemon.cli("migrate").stdout
    assert daemon.cli("migrate", "--check").returncode == 0
    assert "CREATE TABLE jobs" in daemon.cli("migrate", "--sql").stdout


def test_a_terminated_exec_passes_the_signal_on(daemon: Daemon) -> None:
    """SIGTERM to `jobtrail exec` reaches the command, whose own answer decides the exit code."""
    script = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [sys.executable, "-m", "jobtrail", "exec", "--quiet", "--", "sh", "-c", script],
        env=daemon.environment(),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 6


def test_an_end_while_the_daemon_restarts_is_still_recorded(daemon: Daemon) -> None:
    """`exec` tells the end again for a few seconds, under the same event id.

    The first time it meets somebody who hangs up, in the daemon's place, for a start may take longer than that.
    """
    place = daemon.directory / "place.sock"
    place.symlink_to(daemon.socket)
    with subprocess.Popen(
        [sys.executable, "-m", "jobtrail", "exec", "--json", "--", "sh", "-c", "echo ready; read line; exit 4"],
        env={**daemon.environment(), "JOBTRAIL_SOCKET": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        daemon.kill()
        daemon.start()
        aside = place.with_name("aside.sock")
        with socket.socket(socket.AF_UNIX) as nobody:
            nobody.bind(str(aside))
            nobody.listen()
            nobody.settimeout(60)
            aside.replace(place)
            process.stdin.write(b"\n")
            process.stdin.close()
            nobody.accept()[0].close()
            aside.symlink_to(daemon.socket)
            aside.replace(place)
        assert process.wait(60) == 4
        usage = json.loads(process.stderr.read().splitlines()[-1])
    assert usage["recorded"] is True
    assert _job(daemon, usage["job_id"])["exit_code"] == 4


def test_a_broken_pipe_ends_the_command_quietly(daemon: Daemon) -> None:
    """The command has the signals of a fresh process: `yes` dies of SIGPIPE instead of complaining."""
    command = f"{sys.executable} -m jobtrail exec --quiet -- yes | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], env=daemon.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("y\n", "")
