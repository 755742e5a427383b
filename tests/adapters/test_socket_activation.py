"""The hooks' socket is opened by another, as systemd does it: clients wait while the daemon restarts."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon_process import Daemon, UnixConnection, wait_until

# What systemd does between fork and exec: the sockets from descriptor 3 on, and the child's own id (sd_listen_fds(3)).
ACTIVATE = """\
import os, sys
for target, source in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(source, target, inheritable=True)
os.environ["LISTEN_PID"] = sys.argv[2] if sys.argv[2] != "own" else str(os.getpid())
os.environ["LISTEN_FDNAMES"] = "jobtrail.socket"
os.execvp(sys.executable, [sys.executable, "-m", "jobtrail", "serve"])
"""


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """systemd's end: it listens as long as the socket unit is active, whether the service runs or not."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o620)
        listener.listen(16)
        yield listener


@contextmanager
def activated(daemon: Daemon, *sockets: socket.socket, pid: str = "own") -> Iterator[subprocess.Popen[bytes]]:
    """The daemon with these sockets."""
    # Well above those that they are put on, so that none takes another's place.
    high = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 50) for one in sockets]
    with daemon.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, ",".join(map(str, high)), pid],
            env={**daemon.environment(), "LISTEN_FDS": str(len(sockets))}, cwd=daemon.directory,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=high,
        )  # fmt: skip
    daemon.process = process
    for one in high:
        os.close(one)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def post(daemon: Daemon, *, event_id: str, seconds: float = 60.0) -> int:
    """A prolog; the status of the answer."""
    body = b"SLURM_JOB_ID=7\0SLURM_CLUSTER_NAME=lab\0SLURMD_NODENAME=n1\0SLURM_JOB_USER=ada\0SLURM_JOB_UID=1001\0"
    connection = UnixConnection(daemon.socket, timeout=seconds)
    try:
        headers = {"Jobtrail-Event-Id": event_id, "Jobtrail-Event-Time": "1790000000.5"}
        connection.request("POST", "/v1/hooks/slurm/prolog", body=body, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_a_hook_that_comes_while_the_daemon_restarts_waits_and_is_taken(tmp_path: Path) -> None:
    """It connects at once, with no daemon there, and has its answer when the next one is."""
    daemon = Daemon(tmp_path)
    with listening(daemon.socket) as listener:
        with activated(daemon, listener) as first:
            assert post(daemon, event_id=str(uuid.uuid4())) == 201
            first.terminate()
            assert first.wait(60) == 0, daemon.tail()
        inode = daemon.socket.stat().st_ino
        waiting = str(uuid.uuid4())
        statuses: list[int] = []
        hook = threading.Thread(target=lambda: statuses.append(post(daemon, event_id=waiting)))
        hook.start()
        wait_until(lambda: "waits" if connections(daemon.socket) else None, "the hook to be connected")
        assert statuses == []
        with activated(daemon, listener):
            hook.join(60)
            assert statuses == [201]
            assert post(daemon, event_id=waiting) == 200, "it is known"
        assert daemon.socket.stat().st_ino == inode, "the socket is systemd's, and stays"
        assert daemon.socket.stat().st_mode & 0o777 == 0o620


def connections(path: Path) -> int:
    """Clients connected to a Unix socket and not yet taken or taken: lines of it beyond the listener's own."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(f" {path}") for line in lines) - 1


def test_both_sockets(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    poke = tmp_path / "poke.sock"
    with listening(daemon.socket) as one, listening(poke) as other, activated(daemon, one, other):
        wait_until(daemon._answers, "the daemon to answer", timeout_seconds=60.0)
        assert b"2 sockets" not in daemon.log.read_bytes()
    assert poke.exists()


def test_a_socket_that_nobody_would_serve_is_refused(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with listening(tmp_path / "other.sock") as other, activated(daemon, other) as process:
        assert process.wait(60) == 2
        assert f"http.socket: systemd listens on {tmp_path}/other.sock for this daemon" in daemon.tail()


def test_what_is_no_listening_unix_socket_is_refused(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other, activated(daemon, other) as process:
        assert process.wait(60) == 2
        assert "LISTEN_FDS: descriptor 3 is no listening Unix socket" in daemon.tail()


@pytest.mark.parametrize("pid", ["1", ""])
def test_sockets_meant_for_another_process_are_left_alone(tmp_path: Path, pid: str) -> None:
    """The variables of a parent that was activated: this daemon opens its own."""
    daemon = Daemon(tmp_path)
    with listening(tmp_path / "other.sock") as other, activated(daemon, other, pid=pid):
        own = "the daemon to answer on a socket of its own"
        wait_until(lambda: daemon.socket.exists() and daemon._answers(), own, timeout_seconds=60.0)
