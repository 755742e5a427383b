"""Local runs whose end nobody reports, against the real daemon: `jobtrail exec` killed, the node rebooted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from tests.daemon_process import Daemon, wait_until
from tests.requirements import unmet

SCRIPT = "echo ready $$; read line"


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    """Daemons with a database, which look for runaways twice a second."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-runaways-"))
    made: list[Daemon] = []
    with embedded_postgres.running(directory / "postgres") as url:
        migrate.upgrade(url)

        def make(**sampling: Any) -> Daemon:
            settings = {"interval_seconds": 0.5, "runaway_seconds": 0.5, **sampling}
            daemon = Daemon(directory / "daemon", scheduler="local", database={"url": url}, sampling=settings)
            made.append(daemon)
            return daemon

        try:
            yield make
        finally:
            for daemon in made:
                if daemon.process is not None and daemon.process.poll() is None:
                    daemon.kill()
            shutil.rmtree(directory, ignore_errors=True)


class Observed:
    """`jobtrail exec` of a shell that says `ready` and its pid, and then waits for its standard input."""

    def __init__(self, daemon: Daemon, *, cgroup_root: str | None = None) -> None:
        environment = daemon.environment()
        if cgroup_root is not None:
            environment["JOBTRAIL_SAMPLING__CGROUP_ROOT"] = cgroup_root
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobtrail", "exec", "--", "sh", "-c", SCRIPT],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.job_id = ""
        self.shell = 0

    def wait_ready(self, daemon: Daemon) -> None:
        """Until it runs and its job is known."""
        assert self.process.stdout is not None
        ready, _, pid = self.process.stdout.readline().partition(b" ")
        assert ready == b"ready"
        self.shell = int(pid)
        listed = json.loads(wait_until(lambda: _listed(daemon), "the job to be listed", every_seconds=0.2))
        self.job_id = str(listed["jobs"][0]["job_id"])

    def kill(self) -> None:
        """Kill `exec`, which alone would tell the end, and then what it runs."""
        self.process.kill()
        self.process.wait(60)
        self.close()
        if self.shell:
            wait_until(lambda: not _lives(self.shell), "the shell to end")

    def let_end(self) -> int:
        """The end, told as ever; the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.close()
        return self.process.wait(60)

    def close(self) -> None:
        """Let go of the shell: its `read` ends, and with it the shell."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def observe() -> Iterator[Callable[..., Observed]]:
    """Observed commands; whatever the test did not end is ended with it."""
    with ExitStack() as ending:

        def start(daemon: Daemon, *, cgroup_root: str | None = None) -> Observed:
            observed = Observed(daemon, cgroup_root=cgroup_root)
            ending.callback(observed.kill)
            observed.wait_ready(daemon)
            return observed

        yield start


def _lives(pid: int) -> bool:
    """Whether the process runs: a dead one may wait for ever for a parent that asks after it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _listed(daemon: Daemon) -> str | None:
    done = daemon.cli("jobs", "list", "--json", check=False)
    return done.stdout if done.returncode == 0 and '"local-' in done.stdout else None


def _trail(daemon: Daemon, job_id: str) -> list[dict[str, Any]]:
    done = daemon.cli("audit", "log", job_id, "--json", check=False)
    return [row["event"] for row in json.loads(done.stdout or "[]")]


def _closing(daemon: Daemon, job_id: str) -> dict[str, Any]:
    """The inferred end, once it is stored."""

    def stored() -> dict[str, Any] | None:
        return next((event for event in _trail(daemon, job_id) if event["kind"] == "job_closed"), None)

    return wait_until(stored, f"{job_id} to be closed; log:\n{daemon.tail()}", timeout_seconds=90, every_seconds=0.3)


def _job(daemon: Daemon, job_id: str) -> dict[str, Any]:
    return dict(json.loads(daemon.cli("jobs", "show", job_id, "--json").stdout)["job"])


@pytest.mark.parametrize("own_cgroup", [False, True])
def test_a_killed_exec_leaves_no_run_open(
    make_daemon: Callable[..., Daemon], observe: Callable[..., Observed], tmp_path: Path, own_cgroup: bool
) -> None:
    """Its process tree, or the cgroup that nobody removes now, is without processes: the run is over, as inferred."""
    with make_daemon() as daemon:
        # Below an empty directory `exec` can make no cgroup, so that it names its process instead.
        observed = observe(daemon, cgroup_root=None if own_cgroup else str(tmp_path))
        started = _trail(daemon, observed.job_id)[0]
        where = started["whereabouts"]
        if own_cgroup and "cgroup_path" not in where:
            observed.kill()
            unmet("this user may make no cgroup here")
        before_us = time.time_ns() // 1000
        observed.kill()
        gone_us = time.time_ns() // 1000
        event = _closing(daemon, observed.job_id)
        after_us = time.time_ns() // 1000
        assert (event["changed_by"], event["source"]) == ("collector", "runaways")
        assert event["opened_by"] == started["event_id"]
        assert event["closing"]["reason"] == ("cgroup_gone" if own_cgroup else "process_gone")
        assert event["closing"]["not_before_us"] <= gone_us, "seen last while it ran"
        assert before_us <= event["time_us"] <= after_us - 9_000_000, "closed after ten seconds, as of the first miss"
        job = wait_until(
            lambda: (found := _job(daemon, observed.job_id))["state"] != "running" and found, "the run to be over"
        )
        assert (job["state"], job["end_inferred"], job["exit_code"]) == ("ended", True, None)
        settled = lambda: "usage_recorded" in [one["kind"] for one in _trail(daemon, observed.job_id)]  # noqa: E731
        wait_until(settled, "the final usage", every_seconds=0.3)
        wait_until(lambda: not daemon.metrics().get("hpc_job_info"), "the series to end")
        closed = {labels["reason"]: value for labels, value in daemon.metrics()["jobtrail_runs_closed_total"]}
        assert closed[event["closing"]["reason"]] == 1
        if own_cgroup:
            _remove_cgroups(observed.job_id)


def _remove_cgroups(job_id: str) -> None:
    """What `exec` would have removed, had it not been killed."""
    for version in ("", "*/"):
        for path in Path("/sys/fs/cgroup").glob(f"{version}jobtrail/{job_id}"):
            path.rmdir()


def _proc_of_another_boot(directory: Path) -> Path:
    """What the daemon reads of /proc, with another boot id and the boot a moment ago."""
    boot_id = directory / "sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text(f"{uuid.uuid4()}\n")
    (directory / "stat").write_text(f"cpu 1 1 1 1 1 1 1 1\ncpu0 1 1 1 1 1 1 1 1\nbtime {int(time.time())}\n")
    return directory


def test_after_a_reboot_its_runs_are_closed_and_not_sampled(
    make_daemon: Callable[..., Daemon], observe: Callable[..., Observed], tmp_path: Path
) -> None:
    """Told by the kernel's boot id at the daemon's start; a word of `exec` that comes after all replaces the guess."""
    daemon = make_daemon()
    daemon.start()
    observed = observe(daemon, cgroup_root=str(tmp_path / "none"))
    daemon.kill()
    (event_before,) = _trail(daemon, observed.job_id)[:1]
    rebooted = make_daemon(proc_root=str(_proc_of_another_boot(tmp_path / "proc")), runaway_seconds=3600)
    with rebooted:
        event = _closing(rebooted, observed.job_id)
        assert event["closing"]["reason"] == "node_rebooted"
        assert event["closing"]["not_before_us"] >= event_before["time_us"]
        assert not rebooted.metrics().get("hpc_job_info")
        assert _job(rebooted, observed.job_id)["end_inferred"] is True
        assert observed.let_end() == 0
        job = wait_until(
            lambda: (found := _job(rebooted, observed.job_id))["state"] == "completed" and found, "the told end"
        )
        assert (job["end_inferred"], job["exit_code"], job["run"]) == (False, 0, 1)
        (told,) = [one for one in _trail(rebooted, observed.job_id) if one["kind"] == "job_finished"]
        assert told["opened_by"] == event_before["event_id"]


def test_a_restarted_daemon_closes_what_ended_while_it_was_down(
    make_daemon: Callable[..., Daemon], observe: Callable[..., Observed]
) -> None:
    """It had no time for a checkpoint, and finds neither the process nor any word on its end."""
    daemon = make_daemon()
    daemon.start()
    observed = observe(daemon, cgroup_root="/nonexistent")
    daemon.kill()
    observed.kill()
    with daemon:
        event = _closing(daemon, observed.job_id)
        assert event["closing"]["reason"] == "process_gone"
        assert _job(daemon, observed.job_id)["end_inferred"] is True


def test_a_run_that_goes_on_stays_open(make_daemon: Callable[..., Daemon], observe: Callable[..., Observed]) -> None:
    """Killed is `exec` alone; what it ran goes on, and is looked at on."""
    with make_daemon() as daemon:
        observed = observe(daemon, cgroup_root="/nonexistent")
        root = _trail(daemon, observed.job_id)[0]["whereabouts"]["root_pid"]
        observed.process.kill()
        observed.process.wait(60)
        until = time.monotonic() + 13
        wait_until(lambda: time.monotonic() > until, "more than the grace", every_seconds=0.5)
        assert _job(daemon, observed.job_id)["state"] == "running"
        assert "job_closed" not in [event["kind"] for event in _trail(daemon, observed.job_id)]
        os.kill(root, signal.SIGKILL)
        observed.close()
        assert _closing(daemon, observed.job_id)["closing"]["reason"] == "process_gone"
