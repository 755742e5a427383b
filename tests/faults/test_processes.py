"""T-07, T-08, T-14, T-15: two daemons, a frozen one, one whose directory is taken away, one without descriptors."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.daemon_process import REPOSITORY, wait_until
from tests.faults.conftest import NewTrial
from tests.faults.exercises import start_second
from tests.faults.figures import often
from tests.faults.oracle import fingerprint
from tests.faults.trial import FaultDaemon, Trial
from tests.hooks.hook_process import assert_harmless, run_hook
from tests.requirements import require_root

CONFIG_ERROR = 2


@contextmanager
def frozen(trial: Trial) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end."""
    assert trial.daemon.pid is not None
    trial.watch.paused.set()
    os.kill(trial.daemon.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, trial.daemon.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        os.kill(trial.daemon.pid, signal.SIGCONT)
        trial.watch.paused.clear()


@pytest.mark.fault("T-07")
def test_two_daemons_on_one_spool(trial: Trial) -> None:
    """The second ends at once and names the first, also while that one is frozen or under load; nothing is lost."""
    with trial.producing(clients=8):
        for _ in range(often(quick=1, full=5)):
            trial.await_acknowledgements(50)
            code, said = start_second(trial)
            assert code != 0
            assert f"is in use by the process with pid {trial.daemon.pid}" in said
        with frozen(trial):
            code, said = start_second(trial)
            assert code != 0
            assert f"is in use by the process with pid {trial.daemon.pid}" in said
        trial.await_acknowledgements(50)
    trial.figures.set(second_daemons=often(quick=1, full=5) + 1)
    trial.check()


@pytest.mark.fault("T-08")
def test_a_frozen_daemon(trial: Trial) -> None:
    """The real hooks give up in time and leave their events as files; nothing is doubled when the daemon goes on.

    What a hook had posted lies in the frozen daemon's socket, and the same event lies in the spool directory.
    """
    slowest = 0.0
    with trial.producing(clients=8):
        trial.await_acknowledgements(100)
        with frozen(trial):
            until = time.monotonic() + often(quick=4, full=60)
            hooks = 0
            while time.monotonic() < until or hooks < 4:
                slowest = max(slowest, run_real_hook(trial, "prolog" if hooks % 2 == 0 else "epilog"))
                hooks += 1
            owe_files(trial)
        trial.await_acknowledgements(50)
    wait_until(lambda: not list_incoming(trial), "the hooks' files to be taken", timeout_seconds=60)
    trial.figures.set(frozen_seconds=often(quick=4, full=60), hooks=hooks, hook_slowest_s=slowest)
    trial.check()


def run_real_hook(trial: Trial, hook: str) -> float:
    """Run a hook script as slurmd does; the seconds it took (I8)."""
    run = run_hook(
        [str(REPOSITORY / "hooks" / "slurm" / f"{hook}.sh")],
        {
            "JOBTRAIL_SOCKET": str(trial.daemon.socket), "JOBTRAIL_SPOOL": str(trial.daemon.spool),
            "SLURM_JOB_ID": str(trial.next_job()), "SLURM_CLUSTER_NAME": "lab", "SLURMD_NODENAME": "n1",
            "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_START_TIME": str(int(time.time())),
        },
    )  # fmt: skip
    assert_harmless(run)
    return run.seconds


def list_incoming(trial: Trial) -> list[Path]:
    return [path for path in (trial.daemon.spool / "incoming").iterdir() if not path.name.startswith(".")]


def owe_files(trial: Trial) -> None:
    """From now on the daemon owes what hooks left in its directory."""
    files = list_incoming(trial)
    assert files
    for path in files:
        header, body = path.read_bytes().split(b"\0", 3)[:3], path.read_bytes().split(b"\0", 3)[3]
        hook = header[0].partition(b"=")[2].decode()
        records = body[:-1].split(b"\0")
        job = next(int(record[13:]) for record in records if record.startswith(b"SLURM_JOB_ID="))
        kind = {"prolog": "job_started", "epilog": "job_finished"}[hook]
        trial.owe(path.name, kind=kind, job=job, sha=fingerprint(records))


@pytest.mark.fault("T-14")
@pytest.mark.parametrize("harm", ["removed", "moved and replaced", "link planted"])
def test_a_spool_directory_taken_away(trial: Trial, place: Path, harm: str) -> None:
    """The daemon acknowledges nothing more and ends; nothing is written where a planted link leads to."""
    assert trial.send(*trial.fresh_job()) == [201, 201]
    trial.settle()
    spool, elsewhere = trial.daemon.spool, place / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    process = trial.daemon.process
    assert process is not None
    if harm == "removed":
        (place / "away").mkdir()
        spool.rename(place / "away" / "spool")  # as one step: the daemon writes there
        shutil.rmtree(place / "away")
    else:
        spool.rename(place / "away")
        if harm == "link planted":
            spool.symlink_to(elsewhere)
        else:
            shutil.copytree(place / "away", spool)
    with suppress(OSError, EOFError):  # it may end before it answers
        assert 201 not in trial.send(*trial.fresh_job())
    assert process.wait(60) != 0
    if harm == "link planted":
        assert trial.daemon.launch().wait(60) == CONFIG_ERROR
        assert "is a symbolic link" in trial.daemon.tail(3)
        assert list(elsewhere.iterdir()) == []
        spool.unlink()
        (place / "away").rename(spool)
    trial.revive()
    trial.figures.set(harm=harm)
    trial.check()


@pytest.mark.fault("T-14")
def test_a_spool_of_somebody_else(trial: Trial) -> None:
    """Nobody but its owner may have written there, so the daemon refuses to start; with the owner back it starts."""
    require_root("give a directory to somebody else")
    trial.kill()
    os.chown(trial.daemon.spool, 12345, 12345)
    assert trial.daemon.launch().wait(60) == CONFIG_ERROR
    assert "belongs to uid 12345" in trial.daemon.tail(3)
    os.chown(trial.daemon.spool, 0, 0)
    trial.revive()
    trial.figures.set(harm="wrong owner")
    trial.check()


@pytest.mark.fault("T-15")
def test_a_crowd_and_few_descriptors(new_trial: NewTrial, place: Path, database: str) -> None:
    """A crowd of connections against a limit of 64 descriptors: they are turned away, and hooks come through."""
    crowd = often(quick=300, full=1000)
    daemon = FaultDaemon(place / "d", database={"url": database})
    daemon.command = ("-c", LIMITED)
    with new_trial(daemon=daemon) as trial:
        with trial.producing(clients=3, copies=1):
            crowd_around(trial, crowd)
        trial.figures.set(connections=crowd, descriptor_limit=64)
        trial.check()


def crowd_around(trial: Trial, crowd: int) -> None:
    """Connect so often at once, and leave; again and again."""
    for _ in range(often(quick=3, full=20)):
        trial.watch.paused.set()  # it is turned away as well
        with ExitStack() as connections:
            for _ in range(crowd):
                connection = connections.enter_context(socket.socket(socket.AF_UNIX))
                connection.setblocking(False)
                with suppress(BlockingIOError):  # the queue of the socket is full
                    connection.connect(str(trial.daemon.socket))
        trial.watch.paused.clear()
        trial.await_acknowledgements(50, timeout_seconds=60)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from jobtrail.__main__ import main
sys.argv = ["jobtrail", "serve"]
main()
"""
