"""The real daemon in a temporary directory, for measuring it from outside."""

from __future__ import annotations

import os
import signal
import socket as sockets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

REPOSITORY = Path(__file__).parents[1]
START_LIMIT_SECONDS = 30.0


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A started daemon."""

    pid: int
    socket: Path
    directory: Path
    start_seconds: float

    def rss_bytes(self) -> int:
        """Resident memory now (proc(5), statm field 2)."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self) -> float:
        """CPU time so far of all threads, to the nanosecond (proc(5), schedstat field 1)."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


@contextmanager
def running(**settings: Any) -> Iterator[Running]:
    """Start `jobtrail serve` with `settings`, wait until it answers, stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-bench-") as name:
        directory = Path(name)
        tree: dict[str, Any] = {
            "http": {"socket": str(directory / "hooks.sock"), "port": 0},
            "spool": {"directory": str(directory / "spool")},
            "logging": {"level": "error", "format": "json"},
            **settings,
        }
        (directory / "jobtrail.yaml").write_text(yaml.safe_dump(tree))
        environment = {**os.environ, "JOBTRAIL_CONFIG": str(directory / "jobtrail.yaml")}
        environment["PYTHONPATH"] = str(REPOSITORY / "daemon")
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "jobtrail", "serve"], env=environment, cwd=directory)
        try:
            socket = directory / "hooks.sock"
            while not _answers(socket):
                if process.poll() is not None or time.monotonic() - began > START_LIMIT_SECONDS:
                    raise RuntimeError(f"the daemon did not start (exit code {process.poll()})")
                time.sleep(0.005)
            seconds = time.monotonic() - began
            yield Running(pid=process.pid, socket=socket, directory=directory, start_seconds=seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _answers(socket: Path) -> bool:
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(socket))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def prolog_body(job_id: int, *, node: str = "bench1") -> bytes:
    """The environment a prolog of Slurm 23.02 or newer forwards, about 1 KB."""
    variables = {
        "SLURMD_NODENAME": node,
        "SLURM_CLUSTER_NAME": "bench",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "SLURM_JOBID": job_id,
        "SLURM_JOB_ACCOUNT": "physics",
        "SLURM_JOB_CPUS_PER_NODE": 4,
        "SLURM_JOB_GID": 1001,
        "SLURM_JOB_ID": job_id,
        "SLURM_JOB_NUM_NODES": 1,
        "SLURM_JOB_PARTITION": "batch",
        "SLURM_JOB_RESTART_COUNT": 0,
        "SLURM_JOB_START_TIME": 1_795_225_712,
        "SLURM_JOB_STDOUT": "/home/alice/results/" + "x" * 400 + ".out",
        "SLURM_JOB_UID": 1001,
        "SLURM_JOB_USER": "alice",
        "SLURM_JOB_WORK_DIR": "/home/alice/results",
        "SLURM_NODELIST": node,
        "SLURM_SCRIPT_CONTEXT": "prolog_slurmd",
        "SLURM_UID": 1001,
    }
    return b"".join(f"{name}={value}\0".encode() for name, value in variables.items())
