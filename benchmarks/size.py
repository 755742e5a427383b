"""Memory and CPU of the node daemon: just started, idle, and with 100 jobs on a cgroup v2 tree of files."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.acknowledgement import Poster
from benchmarks.daemon import Running, running
from benchmarks.figures import Figure, at_most
from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate

JOBS = 100
IDLE_SECONDS = 60.0
SETTLE_SECONDS = 5.0  # after the start: the database is connected, the first look at the node is done
PRESSURE = "".join(f"{kind} avg10=0.00 avg60=0.00 avg300=0.00 total=1234\n" for kind in ("some", "full"))
FILES = {
    "cpu.stat": "usage_usec 1200000\nuser_usec 1000000\nsystem_usec 200000\nnr_periods 0\nnr_throttled 0\n"
    "throttled_usec 0\n",
    "memory.current": "104857600\n",
    "memory.peak": "209715200\n",
    "memory.max": "4294967296\n",
    "memory.stat": "anon 83886080\nfile 20971520\nkernel 4096\nshmem 1048576\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    "io.stat": "8:0 rbytes=1048576 wbytes=2097152 rios=10 wios=20 dbytes=0 dios=0\n",
    "pids.current": "7\n",
    "cgroup.procs": "",
    "cgroup.events": "populated 1\nfrozen 0\n",
    **dict.fromkeys(("cpu.pressure", "memory.pressure", "io.pressure"), PRESSURE),
}


def make_tree(root: Path, jobs: int) -> None:
    """Files as the kernel shows them for `jobs` Slurm jobs on cgroup v2."""
    (root / "cgroup.controllers").parent.mkdir(parents=True, exist_ok=True)
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    scope = root / "system.slice" / "slurmstepd.scope"
    for directory in (scope, *(scope / f"job_{number}" for number in range(1, 2 * jobs, 2))):
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            (directory / name).write_text(text)


def _cpu_per_second(daemon: Running, seconds: float) -> float:
    began, before = time.monotonic(), daemon.cpu_seconds()
    time.sleep(seconds)
    return (daemon.cpu_seconds() - before) / (time.monotonic() - began)


def _begin_jobs(daemon: Running, tree: Path, jobs: int) -> None:
    """Begin jobs, whose cgroups come after the daemon has looked for running ones: it would take those up as well."""
    make_tree(tree, jobs)
    poster = Poster(daemon.socket)
    for number in range(1, jobs + 1):
        poster.post(2 * number - 1)
    poster.close()
    time.sleep(20)  # the doubling looks at young jobs are over, the regular interval has begun


def measure() -> list[Figure]:
    """Start time, idle and loaded memory, idle CPU, and the CPU share of 10 jobs at the default interval.

    All but the start with a database, as on a node of a small cluster.
    """
    with (
        tempfile.TemporaryDirectory(prefix="jobtrail-size-") as name,
        embedded_postgres.running(Path(name) / "postgres") as url,
    ):
        migrate.upgrade(url)
        return _measure(Path(name) / "tree", {"url": url})


def _measure(tree: Path, database: dict[str, str]) -> list[Figure]:
    make_tree(tree, 0)
    sampling = {"cgroup_root": str(tree)}
    with running(sampling=sampling) as daemon:
        start = daemon.start_seconds
    with running(sampling=sampling, database=database, roles=["node"]) as daemon:
        time.sleep(SETTLE_SECONDS)
        idle_cpu = _cpu_per_second(daemon, IDLE_SECONDS)
        idle_rss = daemon.rss_bytes()
        _begin_jobs(daemon, tree, JOBS)
        loaded_rss = daemon.rss_bytes()
    shutil.rmtree(tree)
    make_tree(tree, 0)
    with running(sampling=sampling, database=database, roles=["node"]) as daemon:
        time.sleep(SETTLE_SECONDS)
        _begin_jobs(daemon, tree, 10)
        ten_jobs_cpu = _cpu_per_second(daemon, 60.0)
    return [
        Figure(what="start to ready", value=start, unit="s", target="≤ 0.6 s", met=at_most(0.6, start)),
        Figure(what="memory, idle", value=idle_rss / 2**20, unit="MiB"),
        Figure(
            what=f"memory, {JOBS} jobs",
            value=loaded_rss / 2**20,
            unit="MiB",
            target="≤ 56 MB",
            met=at_most(56e6, loaded_rss),
        ),
        Figure(
            what="CPU, idle", value=idle_cpu * 1e3, unit="ms/s", target="≤ 0.2 ms/s", met=at_most(0.2, idle_cpu * 1e3)
        ),
        Figure(
            what="CPU, 10 jobs every 15 s",
            value=ten_jobs_cpu * 100,
            unit="% of a core",
            target="≤ 0.1 %",
            met=at_most(0.1, ten_jobs_cpu * 100),
        ),
    ]
