"""The two seconds, when everything that can hang does; and the one line in the system log."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon_process import wait_until
from tests.hooks.conftest import Replace, Site, max_seconds, recording_curl
from tests.hooks.fuse_mount import hung_directory
from tests.hooks.hook_process import HOOKS, PROMISED_SECONDS, assert_harmless, incoming, spool_file
from tests.hooks.socket_server import SocketServer
from tests.requirements import require_tool


def logger_script(root: Path, body: str) -> Path:
    """A program to lie over logger(1)."""
    script = root / "logger"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return script


def recording(root: Path) -> Path:
    """A logger that writes its arguments, one a line, into `root`/log."""
    return logger_script(root, f'printf "%s\\n" "$@" >>{root}/log')


def logged(root: Path) -> tuple[str, str]:
    """Priority and text of the one line that the hook gave to the recording logger."""
    tag, name, option, priority, end, text = (root / "log").read_text().splitlines()
    assert (tag, name, option, end) == ("-t", "jobtrail-hook", "-p", "--")
    return priority, text


def test_a_spool_on_a_lost_network_file_system(site: Site) -> None:
    """Processes that hang there die of SIGKILL: none outlives the hook, though the file system stays away."""
    with hung_directory(site.spool / "incoming", killable=True):
        assert_harmless(site.run())


def test_a_spool_on_a_dead_disk(site: Site) -> None:
    """A process that not even SIGKILL can end does not hold the hook up; once the disk is back, none is left."""
    with ExitStack() as disk:
        disk.enter_context(hung_directory(site.spool / "incoming", killable=False))
        assert_harmless(site.run_with(site.settings(), then=disk.close))


@pytest.mark.parametrize("timeout", ["0.1", "1.0", "1.5"])
def test_the_worst_case_ends_by_itself(site: Site, replaced: Replace, timeout: str) -> None:
    """Daemon, spool and system log hang at once, with a body larger than a pipe holds."""
    prefix = replaced({"logger": logger_script(site.root, "exec sleep 30")})
    environment = site.settings(JOBTRAIL_TIMEOUT=timeout, SLURM_JOB_COMMENT="x" * 100_000)
    with ExitStack() as disk, SocketServer(site.socket, status=None):
        disk.enter_context(hung_directory(site.spool / "incoming", killable=False))
        assert_harmless(Site(site.root, site.shell, prefix).run_with(environment, then=disk.close))


@pytest.mark.parametrize("hook", ["prolog", "epilog_slurmctld"])
@pytest.mark.parametrize("timeout", ["0.1", "1.0", "1.5"])
def test_all_limits_together_stay_below_two_seconds(site: Site, replaced: Replace, hook: str, timeout: str) -> None:
    """Each as the hook gives it to curl(1) and timeout(1) when each of its steps hangs, so at its very worst."""
    slow, limits = site.root / "slow", site.root / "limits"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    real = shutil.copy(require_tool("timeout", "it holds the limits"), site.root / "real-timeout")
    (site.root / "timeout").write_text(f'#!/bin/sh\necho "$3 $4" >>{limits}\nexec {real} "$@"\n')
    for script in (slow, site.root / "timeout"):
        script.chmod(0o755)
    programs = {"curl": recording_curl(site.root), "timeout": site.root / "timeout", "sync": slow, "logger": slow}
    assert_harmless(Site(site.root, site.shell, replaced(programs)).run(hook, JOBTRAIL_TIMEOUT=timeout))
    given = [line.split() for line in limits.read_text().splitlines()]
    # grep and the shell that it feeds run at the same time; the last two are the event's name and the line in the log.
    together, (renaming, logging) = given[:2], given[2:]
    assert {program for _, program in together} == {"grep", "sh"}
    assert (renaming[1], logging[1]) == ("sh", "logger")
    steps = [max_seconds(site.root), max(float(one) for one, _ in together), float(renaming[0]), float(logging[0])]
    assert sum(steps) < PROMISED_SECONDS - 0.2, f"{steps} leave no time to start the programs"


def test_a_sync_that_is_too_slow_still_leaves_the_event(dash_site: Site, replaced: Replace) -> None:
    """A disk too busy to flush in time: the event gets its name all the same, and the log says what is not known."""
    slow = dash_site.root / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    prefix = replaced({"sync": slow, "logger": recording(dash_site.root)})
    assert_harmless(Site(dash_site.root, dash_site.shell, prefix).run())
    (path,) = incoming(dash_site.spool)
    assert spool_file(path).body == b"SLURM_JOB_ID=4711\0"
    priority, text = logged(dash_site.root)
    assert priority == "daemon.warning"
    assert text.endswith(f"kept in {dash_site.spool}/incoming, but the disk did not confirm it in time")


def test_a_hanging_logger(site: Site, replaced: Replace) -> None:
    """A full /dev/log blocks logger(1); the hook goes on without it."""
    prefix = replaced({"logger": logger_script(site.root, "exec sleep 30")})
    assert_harmless(Site(site.root, site.shell, prefix).run())
    assert len(incoming(site.spool)) == 1


def test_an_accepted_event_is_not_logged(site: Site, replaced: Replace) -> None:
    """The system log hears of trouble only."""
    with SocketServer(site.socket):
        assert_harmless(Site(site.root, site.shell, replaced({"logger": recording(site.root)})).run())
    assert not (site.root / "log").exists()


def test_a_kept_event_is_logged_once_with_job_and_event(site: Site, replaced: Replace) -> None:
    """One line says which job, which event, why, and where it is now."""
    prefix = replaced({"logger": recording(site.root)})
    with SocketServer(site.socket, status=503):
        assert_harmless(Site(site.root, site.shell, prefix).run("epilog"))
    (path,) = incoming(site.spool)
    priority, text = logged(site.root)
    assert priority == "daemon.warning"
    assert text.startswith(f"epilog of job 4711: event {path.name} not accepted (HTTP 503, curl exit ")
    assert text.endswith(f"; kept in {site.spool}/incoming")


def test_a_lost_event_is_logged_once_with_job_and_event(site: Site, replaced: Replace) -> None:
    """When neither daemon nor disk takes it, the line in the log is all that is left of it."""
    (site.spool / "incoming").rmdir()
    (site.spool / "incoming").write_bytes(b"")
    assert_harmless(Site(site.root, site.shell, replaced({"logger": recording(site.root)})).run())
    priority, text = logged(site.root)
    assert priority == "daemon.err"
    assert re.match(r"prolog of job 4711: event [0-9a-f-]{36} not accepted \(HTTP 000, curl exit ", text)
    assert text.endswith(f"; LOST: could not be written to {site.spool}/incoming")


def test_a_job_id_that_is_no_number_is_not_logged(dash_site: Site, replaced: Replace) -> None:
    """The log is read by people and programs; it gets no text that a user could choose."""
    prefix = replaced({"logger": recording(dash_site.root)})
    assert_harmless(Site(dash_site.root, dash_site.shell, prefix).run(SLURM_JOB_ID="1\nFAKE"))
    assert logged(dash_site.root)[1].startswith("prolog of job unknown: event ")


@pytest.mark.parametrize("sent", ["TERM", "HUP", "INT"])
def test_a_signal_does_not_lose_the_event(site: Site, sent: str) -> None:
    """slurmd being stopped may signal its hooks; one that waits for the daemon still keeps its event and exits 0."""
    with SocketServer(site.socket, status=None) as server:

        def interrupt(group: int) -> None:
            wait_until(lambda: server.requests, "the hook to wait for the daemon")
            os.killpg(group, signal.Signals[f"SIG{sent}"])

        assert_harmless(site.run_with(site.settings(JOBTRAIL_TIMEOUT="1.5"), during=interrupt))
    assert len(incoming(site.spool)) == 1


def test_shellcheck_finds_nothing() -> None:
    """Also not of the kinds that only inform."""
    shellcheck = require_tool("shellcheck", "the hooks promise to be clean")
    files = sorted(HOOKS.glob("*.sh"))
    result = subprocess.run([shellcheck, "--severity=style", "--shell=sh", *files], capture_output=True, check=False)
    assert result.stdout == b""
    assert result.returncode == 0
