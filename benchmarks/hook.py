"""The whole hook process beside a bare curl of the same body to the same daemon."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from benchmarks.daemon import REPOSITORY, Running, prolog_body, running
from benchmarks.figures import Figure, at_most

ROUNDS = 60
HOOK = REPOSITORY / "hooks" / "slurm" / "prolog.sh"


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    wall = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} exited with {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _hook(daemon: Running, job_id: int) -> tuple[float, float]:
    variables = dict(part.split("=", 1) for part in prolog_body(job_id).decode().split("\0") if part)
    variables["JOBTRAIL_SOCKET"] = str(daemon.socket)
    variables["JOBTRAIL_SPOOL"] = str(daemon.directory / "spool")
    return _timed(["/bin/sh", str(HOOK)], variables)


def _bare_curl(daemon: Running, job_id: int, body: Path) -> tuple[float, float]:
    body.write_bytes(prolog_body(job_id))
    headers = [f"Jobtrail-Event-Id: {uuid.uuid4()}", f"Jobtrail-Event-Time: {time.time():.6f}", "Expect:"]
    command = ["curl", "-q", "-s", "-o", os.devnull, "--fail", "--unix-socket", str(daemon.socket)]
    for header in headers:
        command += ["-H", header]
    command += ["--data-binary", f"@{body}", "http://localhost/v1/hooks/slurm/prolog"]
    return _timed(command, {"PATH": "/usr/bin:/bin"})


def measure() -> list[Figure]:
    """Median wall time beside curl's, and median CPU time."""
    with running() as daemon, tempfile.TemporaryDirectory() as name:
        body = Path(name) / "body"
        hooks, curls = [], []
        for number in range(1, 2 * ROUNDS, 2):
            hooks.append(_hook(daemon, number))
            curls.append(_bare_curl(daemon, number + 1, body))
        left = list((daemon.directory / "spool" / "incoming").glob("*"))
        if left:
            raise RuntimeError(f"{len(left)} of {ROUNDS} hooks fell back to the spool: not the path to be measured")
    wall, curl_wall = (statistics.median(pair[0] for pair in pairs) * 1e3 for pairs in (hooks, curls))
    cpu, curl_cpu = (statistics.median(pair[1] for pair in pairs) * 1e3 for pairs in (hooks, curls))
    return [
        Figure(
            what="hook process, wall time",
            value=wall,
            unit="ms",
            reference="bare curl",
            reference_value=curl_wall,
            target="≤ 1.3 × reference",
            met=at_most(1.3, wall / curl_wall),
        ),
        Figure(
            what="hook process, CPU time",
            value=cpu,
            unit="ms",
            reference="bare curl",
            reference_value=curl_cpu,
            target="≤ 15 ms",
            met=at_most(15, cpu),
        ),
    ]
