"""`jobtrail report` and `jobtrail top` as people run them: real processes, a real daemon, a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import close_pool, migrate, open_pool
from tests.daemon_process import REPOSITORY, Daemon, wait_until
from tests.measured_job import store_measured_job
from tests.requirements import require_root

OWNER, STRANGER = "games", "daemon"
DAEMON = str(REPOSITORY / "daemon")
FORMS = {"text": (), "JSON": ("--json",)}
SLEEP = "import time; time.sleep(600)"
AS_USER = """
import os, sys
from jobtrail.__main__ import main
import jobtrail.cli.audit
from jobtrail.cli.commands import application
from pwd import getpwnam
from typer.testing import CliRunner
CliRunner().invoke(application, ["report", "999", "--json"])  # loads what is loaded when used
"\\a".encode("unicode_escape")
user = getpwnam(sys.argv.pop(1))
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
sys.argv[0] = "jobtrail"
main()
"""


async def _store(url: str) -> None:
    pool = await open_pool(url, size=2, timeout_seconds=30.0)
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    await store_measured_job(pool, begin=begin, uid=pwd.getpwnam(OWNER).pw_uid)
    await close_pool(pool, timeout_seconds=5.0)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-report-pg-"))
    try:
        with embedded_postgres.running(directory / "postgres") as address:
            migrate.upgrade(address)
            asyncio.run(_store(address))
            yield address
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def daemon(url: str) -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-report-"))
    directory.chmod(0o755)
    try:
        with Daemon(
            directory / "daemon", scheduler="local", database={"url": url}, sampling={"interval_seconds": 1.0}
        ) as one:
            yield one
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def cluster(url: str) -> Iterator[Daemon]:
    """A daemon of a node of a cluster: it has the socket that all users may connect to."""
    require_root("the commands are run as two other users")
    with tempfile.TemporaryDirectory(prefix="jobtrail-report-") as name:
        Path(name).chmod(0o755)
        settings = {"cluster": "c1", "database": {"url": url}, "slurm": {"sacct": ""}, "gpu": {"vendors": "none"}}
        with Daemon(Path(name) / "daemon", **settings) as one:
            yield one


@pytest.fixture
def alone(url: str, tmp_path: Path) -> Daemon:
    """Settings of a daemon that does not run: the database is asked."""
    return Daemon(tmp_path / "nobody", scheduler="local", database={"url": url})


def run(daemon: Daemon, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command with variables of its own."""
    command = [sys.executable, "-m", "jobtrail", *arguments]
    return subprocess.run(
        command, env={**daemon.environment(), **variables}, capture_output=True, text=True, timeout=60, check=False
    )


def as_user(daemon: Daemon, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command run by an ordinary user, who may not read the settings and so knows the socket by its variable."""
    environment = {**daemon.environment(), "JOBTRAIL_POKE_SOCKET": str(daemon.socket.with_name("poke.sock"))}
    del environment["JOBTRAIL_CONFIG"]
    return subprocess.run(
        [sys.executable, "-c", AS_USER, user, *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=False, cwd="/",
    )  # fmt: skip


@pytest.mark.parametrize("job", ["7", "slurm-7", "6_3", "slurm-6_3"])
def test_a_report_begins_with_the_sentence_and_has_advice_to_paste(daemon: Daemon, job: str) -> None:
    done = run(daemon, "report", job)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].rstrip() == "The job ended after 2 h with exit code 0."
    assert "\x1b" not in done.stdout
    assert re.search(r"^CPU +█+░+ +62 %", done.stdout, re.MULTILINE)
    assert "most uneven node: n1, 100 % CPU where the mean is 62 %" in done.stdout
    assert [line.strip() for line in lines if line.strip().startswith("#SBATCH")] == [
        "#SBATCH --gpus=3", "#SBATCH --time=03:00:00",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 100


def test_daemon_and_database_give_the_same_report(daemon: Daemon, alone: Daemon) -> None:
    of_daemon, of_database = (json.loads(run(one, "report", "7", "--json").stdout) for one in (daemon, alone))
    assert of_daemon == of_database
    assert of_daemon["gpus"]["busy_ratio"] == pytest.approx(0.525)
    assert of_daemon["energy"]["emissions_grams"] == pytest.approx(1536.192)
    assert {note["rule"] for note in of_daemon["advice"]["notes"]} == {"gpu_errors", "gpu_unused", "time_unused"}


def test_without_utf_8_the_bars_are_ascii_and_the_width_is_kept(daemon: Daemon) -> None:
    done = run(daemon, "report", "7", "--width", "60", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert re.search(r"^CPU +#+\.+ +62 %", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 60


@pytest.mark.parametrize("way", ["daemon", "database"])
def test_the_page_has_the_time_lines_with_their_gap(daemon: Daemon, alone: Daemon, way: str, tmp_path: Path) -> None:
    asked = daemon if way == "daemon" else alone
    file = tmp_path / "job.html"
    done = run(asked, "report", "7", "--html", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert "job.html" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    page = file.read_text(encoding="utf-8")
    assert len(page.encode()) < 300 * 1024
    root = ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    figures = {figure.get("id"): figure for figure in root.iter("figure")}
    assert set(figures) == {"cpu", "memory", "gpu-utilisation", "gpu-memory", "gpu-power", "energy"}
    for line in figures["cpu"].iter("path"):
        assert (line.get("d") or "").count("M") == 2, "before and after the gap, and nowhere else"
    assert list(root.iter("script")) == []
    assert "GPU GPU-n1-a: error 94" in "".join(root.itertext())
    printed = run(asked, "report", "7", "--html", "-").stdout
    assert printed.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("report", "slurm-"), 2, "slurm-N, local-N, N for slurm-N, or N_M"),
        (("report", "7_"), 2, "N_M"),
        (("jobs", "show", "7.batch"), 2, "N_M"),
        (("audit", "log", "seven"), 2, "N_M"),
        (("report", "8"), 4, "no job slurm-8 is stored"),
        (("report", "6_9"), 4, "no task 9 of array slurm-6 is stored"),
        (("jobs", "show", "6_9"), 4, "no task 9 of array slurm-6 is stored"),
        (("audit", "log", "6_9"), 4, "no task 9 of array slurm-6 is stored"),
        (("report", "7", "--run", "9"), 4, "no run 9 of job slurm-7 is stored"),
        (("report", "7", "--cluster", "c9"), 4, "for cluster c9"),
        (("report", "7", "--json", "--html", "-"), 2, "exclude each other"),
        (("report", "7", "--width", "3"), 2, "40"),
        (("report", "7", "--html", "/nowhere/page.html"), 1, "/nowhere/page.html cannot be written"),
    ],
)
def test_what_is_wrong_has_its_exit_code(
    daemon: Daemon, alone: Daemon, arguments: tuple[str, ...], code: int, said: str
) -> None:
    for asked in (daemon, alone):
        done = run(asked, *arguments, COLUMNS="300")
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert said in " ".join(done.stderr.replace("│", " ").split())


def test_tasks_of_arrays_are_shown_and_audited_by_their_array(daemon: Daemon) -> None:
    assert json.loads(run(daemon, "jobs", "show", "6_3", "--json").stdout)["job"]["job_id"] == "slurm-7"
    assert {row["job_id"] for row in json.loads(run(daemon, "audit", "log", "6_3", "--json").stdout)} == {"slurm-7"}


def test_a_user_without_a_login_reads_their_own_jobs_and_no_others(cluster: Daemon) -> None:
    own = as_user(cluster, OWNER, "report", "7", "--json")
    assert own.returncode == 0, own.stderr
    assert json.loads(own.stdout)["job_id"] == "slurm-7"
    page = as_user(cluster, OWNER, "report", "7", "--html", "-")
    assert page.stdout.startswith("<!DOCTYPE html>")
    for form in ("--json", "--html=-"):
        other = as_user(cluster, STRANGER, "report", "7", form)
        assert (other.returncode, other.stdout) == (1, "")
        assert "of another user" in other.stderr


def test_a_user_without_a_login_lists_and_shows_their_own_jobs_and_no_others(cluster: Daemon) -> None:
    listed = as_user(cluster, OWNER, "jobs", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {job["job_id"] for job in json.loads(listed.stdout)["jobs"]} == {"slurm-7"}
    assert "no jobs match" in as_user(cluster, STRANGER, "jobs", "list").stdout
    as_root = {name: run(cluster, "jobs", "show", "7", *form).stdout for name, form in FORMS.items()}
    assert {name: as_user(cluster, OWNER, "jobs", "show", "7", *form).stdout for name, form in FORMS.items()} == as_root
    trail = as_user(cluster, OWNER, "audit", "log", "7")
    assert trail.returncode == 0, trail.stderr
    assert trail.stdout == run(cluster, "audit", "log", "7").stdout
    for command in (("jobs", "show"), ("audit", "log")):
        other = as_user(cluster, STRANGER, *command, "7")
        assert (other.returncode, other.stdout) == (1, "")
        assert "of another user" in other.stderr
        assert as_user(cluster, OWNER, *command, "8").returncode == 4


def test_a_user_who_may_not_read_the_settings_needs_none() -> None:
    require_root("the commands are run as another user")
    with tempfile.TemporaryDirectory(prefix="jobtrail-settings-") as name:
        Path(name).chmod(0o755)
        settings = Path(name, ".jobtrail", "jobtrail.yaml")
        settings.parent.mkdir()
        settings.write_text("node: n1\n")
        settings.chmod(0o600)
        absent = f"{name}/poke.sock"
        nobody_there = "postgresql://nobody@127.0.0.1:1/none"
        for words, url, code, said in (
            (("audit", "rebuild", "--check"), "", 2, "cannot be read: Permission denied"),
            (("audit", "rebuild", "--check"), nobody_there, 3, "the database cannot be asked"),
            (("jobs", "create", "--start-time", "1h"), "", 3, f"no daemon answers on {absent}"),
        ):
            environment = {"PATH": os.environ["PATH"], "JOBTRAIL_POKE_SOCKET": absent, "PYTHONPATH": DAEMON}
            environment |= {"DATABASE_URL": url} if url else {}
            done = subprocess.run(
                [sys.executable, "-c", AS_USER, OWNER, *words], cwd=name, env=environment, capture_output=True,
                text=True, timeout=60, check=False,
            )  # fmt: skip
            assert (done.returncode, said in done.stderr.replace("\n", " ")) == (code, True), done.stderr


def test_without_daemon_and_database_it_says_so(tmp_path: Path) -> None:
    for command in (("report", "7"), ("jobs", "list"), ("jobs", "show", "7"), ("audit", "log", "7")):
        done = run(Daemon(tmp_path / "x", scheduler="local"), *command)
        assert done.returncode == 3, command
        assert "no database is configured" in done.stderr
    assert run(Daemon(tmp_path / "y", scheduler="local"), "top", "--once").returncode == 3


@pytest.fixture
def running_job(daemon: Daemon) -> Iterator[str]:
    """A local job that sleeps, until it is seen; those of other tests may be shown for a while yet."""
    others = {job["job_id"] for job in _shown(daemon)}
    process = subprocess.Popen(
        [sys.executable, "-m", "jobtrail", "exec", "--name", "sleeper", "--", sys.executable, "-c", SLEEP],
        env=daemon.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def seen() -> str | None:
        own = (job for job in _shown(daemon) if job["job_id"] not in others)
        return next((str(job["job_id"]) for job in own if job["memory_bytes"] is not None), None)

    try:
        yield wait_until(seen, "the job to be measured", every_seconds=0.3)
    finally:
        process.terminate()
        process.wait(60)


def _shown(daemon: Daemon) -> list[dict[str, Any]]:
    return list(json.loads(run(daemon, "top", "--json").stdout)["jobs"])


def test_top_prints_one_table(daemon: Daemon, running_job: str) -> None:
    done = run(daemon, "top", "--once")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "1 job" in lines[0]
    assert re.match(r"JOB +USER +CPUS +CPU% +MEMORY +LIMIT +GPUS +GPU% +GPU W +RAN +AGE", lines[2])
    assert lines[3].startswith(running_job)
    (job,) = json.loads(run(daemon, "top", "--json").stdout)["jobs"]
    assert (job["gpus"], job["gpu_watts"]) == (None, None)


def test_looking_takes_no_figures_from_prometheus(daemon: Daemon) -> None:
    """Figures of a job that has ended are kept for a few scrapes, however often somebody looks."""
    job = json.loads(daemon.cli("exec", "--json", "--", "true").stderr.splitlines()[-1])["job_id"]
    for _ in range(6):
        jobs = json.loads(run(daemon, "top", "--json").stdout)["jobs"]
        assert job in {one["job_id"] for one in jobs}
    assert job in {labels["job_id"] for labels, _ in daemon.metrics()["hpc_job_info"]}


class Screen:
    """`jobtrail top` on a terminal of 80 columns and 24 lines."""

    def __init__(self, daemon: Daemon, kind: str = "xterm", *, every: str = "0.5") -> None:
        self.master, terminal = pty.openpty()
        self._seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobtrail", "top", "--every", every],
            env={**daemon.environment(), "TERM": kind, "COLUMNS": "80", "LINES": "24"},
            stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, cwd=REPOSITORY,
        )  # fmt: skip
        os.close(terminal)

    def text(self) -> str:
        """All that was written so far, without colours."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            self._seen += piece
        return Text.from_ansi(self._seen.decode(errors="replace")).plain + self._seen.decode(errors="replace")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.master)


@pytest.mark.parametrize("end", ["q", "interrupt", "terminate"])
def test_top_lives_until_it_is_told_to_end_and_leaves_the_terminal_as_it_was(
    daemon: Daemon, running_job: str, end: str
) -> None:
    screen = Screen(daemon)
    try:
        wait_until(lambda: running_job in screen.text(), "the first screen")
        os.write(screen.master, b"mx")
        before = screen.text().count(running_job)
        wait_until(lambda: screen.text().count(running_job) > before, "another look")
        if end == "q":
            os.write(screen.master, b"q")
        else:
            screen.process.send_signal(signal.SIGINT if end == "interrupt" else signal.SIGTERM)
        wait_until(lambda: screen.text() and screen.process.poll() is not None, "its end")
        assert screen.process.returncode == 0
        assert "\x1b[?1049h" in screen.text(), "a screen of its own"
        assert screen.text().rindex("\x1b[?1049l") > screen.text().rindex("\x1b[?1049h")
        assert "\x1b[?25h" in screen.text(), "the cursor is back"
    finally:
        screen.close()


def test_top_prints_one_table_on_a_terminal_that_cannot_be_drawn_over(daemon: Daemon, running_job: str) -> None:
    screen = Screen(daemon, "dumb")
    try:
        wait_until(lambda: running_job in screen.text() and screen.process.poll() is not None, "the table and its end")
        assert (screen.process.returncode, "\x1b" in screen.text()) == (0, False)
    finally:
        screen.close()


def test_top_does_not_wait_for_its_next_look_to_end(daemon: Daemon, running_job: str) -> None:
    """Which is an hour away."""
    screen = Screen(daemon, every="3600")
    try:
        wait_until(lambda: running_job in screen.text(), "the first screen")
        os.write(screen.master, b"q")
        wait_until(lambda: screen.process.poll() is not None, "its end")
    finally:
        screen.close()
