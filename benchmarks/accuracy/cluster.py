"""A real cluster with the project's hooks and daemon, every source of a job's totals on, and the jobs to measure."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from tests.daemon_process import REPOSITORY, Daemon, wait_until
from tests.slurm import remains
from tests.slurm.cluster import SlurmCluster
from tests.slurm.hooks import HookFiles
from tests.slurm.observed import Observed

from benchmarks.accuracy.rows import Measured, total_cpu_seconds
from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate

HOOKS = REPOSITORY / "hooks" / "slurm"
MEBIBYTES = 48
CORES_FOR_ALL = 1.6  # of the two that a small machine has: the jobs' own CPU time must not become their wall time
SHARE = 0.9
SETTLE_SECONDS = 60.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one length: `at_once` together, `rounds` times."""

    wall_seconds: float
    at_once: int = 1
    rounds: int = 1

    @property
    def cpu_seconds(self) -> float:
        """CPU time of each."""
        return self.wall_seconds * min(SHARE, CORES_FOR_ALL / self.at_once)


PLANS = (
    Plan(wall_seconds=0.3, rounds=5),
    Plan(wall_seconds=1, rounds=5),
    Plan(wall_seconds=2, rounds=4),
    Plan(wall_seconds=5, rounds=3),
    Plan(wall_seconds=30),
    *(Plan(wall_seconds=wall, at_once=20) for wall in (0.3, 1, 2, 5, 30)),
)


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What the site has set up beside prolog and epilog."""

    task_epilog: bool = True
    sacct: bool = True


@contextmanager
def site(sources: Sources) -> Iterator[Observed]:
    """PostgreSQL, the daemon, and Slurm with the hooks copied next to each other, as an administrator would."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-accuracy-"))
    directory.chmod(0o755)
    try:
        conf = directory / "hooks" / "hook.conf"
        shutil.copytree(HOOKS, conf.parent)
        for hook in conf.parent.glob("*.sh"):
            hook.chmod(0o755)
        files = HookFiles(prolog=conf.parent / "prolog.sh", epilog=conf.parent / "epilog.sh", hook_conf=conf)
        if sources.task_epilog:
            files["task_epilog"] = conf.parent / "task_epilog.sh"
        cluster = SlurmCluster(**files)
        slurm = {"sacct": "sacct", "conf": str(remains.slurm_conf_of(cluster.directory))}
        with embedded_postgres.running(directory / "postgres") as url:
            migrate.upgrade(url)
            daemon = Daemon(
                directory / "daemon",
                database={"url": url},
                slurm=slurm if sources.sacct else {"sacct": ""},
                logging={"level": "info"},
            )
            poke = daemon.socket.with_name("poke.sock")
            conf.write_text(
                f"JOBTRAIL_SOCKET={daemon.socket}\nJOBTRAIL_SPOOL={daemon.spool}\nJOBTRAIL_POKE_SOCKET={poke}\n"
            )
            with daemon, cluster:
                yield Observed(cluster, daemon, url)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_plans(observed: Observed, plans: Sequence[Plan]) -> list[tuple[Plan, int]]:
    """Run the jobs; return their ids with the plan of each."""
    cluster = observed.cluster
    burn = cluster.jobs_directory / "burn.py"
    shutil.copy(Path(__file__).with_name("burn.py"), burn)
    found = []
    for plan in plans:
        sys.stderr.write(f"  {plan.at_once} × {plan.wall_seconds:g} s, {plan.rounds} times …\n")
        script = f"exec /usr/bin/python3 -I -S {burn} {plan.wall_seconds} {plan.cpu_seconds} {MEBIBYTES}"
        for _ in range(plan.rounds):
            if plan.at_once == 1:
                ids = [cluster.submit(script, "--mem=128")]
            else:
                # One array, so that they start together and not as fast as sbatch can submit them.
                array = cluster.submit_array(script, f"1-{plan.at_once}", "--mem=128")
                ids = [*cluster.array_tasks(array, plan.at_once).values()]
            for number in ids:
                cluster.wait_finished(number, timeout=plan.wall_seconds + 120)
                found.append((plan, number))
    return found


def measured(observed: Observed, plan: Plan, number: int, deadline: float) -> Measured:
    """What is known of a job, once its final usage is stored and nothing more is awaited from Slurm."""
    job = observed.settled(number)
    while job["awaits"] is not None and time.monotonic() < deadline:
        time.sleep(0.5)
        job = observed.settled(number)
    words = observed.cluster.output(number).split()
    told = dict(zip(words[::2], words[1::2], strict=True))
    query = "SELECT cpu_seconds FROM job_nodes WHERE job_id = %s"
    (node,) = observed.rows(query, f"slurm-{number}")
    table = wait_until(
        lambda: _ended(observed.cluster.sacct_rows(number, ["JobID", "End", "TotalCPU", "MaxRSS"], steps=True)),
        f"slurmdbd to know the end of job {number}",
        timeout_seconds=30,
    )
    peaks = [int(row["MaxRSS"].rstrip("K")) * 1024 for row in table if row["MaxRSS"].rstrip("K").isdecimal()]
    return Measured(
        wall_seconds=plan.wall_seconds,
        at_once=plan.at_once,
        true_cpu_seconds=float(told["cpu_seconds"]),
        true_peak_bytes=int(told["peak_bytes"]),
        slurm_cpu_seconds=total_cpu_seconds(table[0]["TotalCPU"]),
        slurm_peak_bytes=max(peaks, default=0) or None,
        node_cpu_seconds=node["cpu_seconds"],
        cpu_seconds=job["cpu_seconds"],
        peak_bytes=job["memory_peak_bytes"],
        coverage_ratio=job["coverage_ratio"],
        samples=job["sample_count"],
        sources=job["usage_sources"] or {},
    )


def _ended(table: list[dict[str, str]]) -> list[dict[str, str]] | None:
    return table if table and all(row["End"] not in {"", "Unknown"} for row in table) else None


def run(sources: Sources, plans: Sequence[Plan] = PLANS) -> list[list[Measured]]:
    """Measure each plan's jobs on a cluster of its own."""
    with site(sources) as observed:
        jobs = run_plans(observed, plans)
        deadline = time.monotonic() + (SETTLE_SECONDS if sources.sacct else 0)
        results = [(plan, measured(observed, plan, number, deadline)) for plan, number in jobs]
    return [[job for of, job in results if of is plan] for plan in plans]
