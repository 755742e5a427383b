"""Jobs of a real Slurm whose epilog never comes, or comes when its run was closed already."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from tests.daemon_process import Daemon, wait_until
from tests.slurm import remains
from tests.slurm.cluster import SlurmCluster
from tests.slurm.observed import HOOKS, Observed, Row

# What runs between two steps takes longer than the grace, and the looks at the job lie closer together than that.
GONE_SECONDS = 8.0
SAMPLING = {"interval_seconds": 0.5, "runaway_seconds": 0.5, "gone_seconds": GONE_SECONDS}
TWO_STEPS = f"echo job $SLURM_JOB_ID; srun sleep 3; sleep {2 * GONE_SECONDS:g}; srun sleep 3"


@contextmanager
def cluster_without_epilog(prolog_flags: str) -> Iterator[tuple[Observed, dict[str, str]]]:
    """A cluster whose jobs' beginning is told, and the environment in which the hooks find the daemon."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-lost-"))
    directory.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        shutil.copy(HOOKS / "prolog.sh", directory)
        conf = directory / "hook.conf"
        url = stack.enter_context(embedded_postgres.running(directory / "postgres"))
        migrate.upgrade(url)
        slurm = {"rest_url": "", "sacct": ""}
        daemon = Daemon(directory / "daemon", database={"url": url}, sampling=SAMPLING, slurm=slurm)
        conf.write_text(f"JOBTRAIL_SOCKET={daemon.socket}\nJOBTRAIL_SPOOL={daemon.spool}\n")
        stack.enter_context(daemon)
        cluster = SlurmCluster(prolog=directory / "prolog.sh", hook_conf=conf, prolog_flags=prolog_flags)
        stack.enter_context(cluster)
        yield Observed(cluster, daemon, url), {"JOBTRAIL_HOOK_CONF": str(conf), "PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module", autouse=True)
def _nothing_left(slurm_packages: None) -> None:
    remains.remove_abandoned()


def closed(observed: Observed, slurm_id: int) -> Row:
    """The job once its run is over by inference and its usage is settled."""

    def condition() -> Row | None:
        kinds = {row["event_kind"] for row in observed.trail(slurm_id)}
        return observed.job(slurm_id) if {"job_closed", "usage_recorded"} <= kinds else None

    return wait_until(condition, f"{slurm_id} to be closed; log:\n{observed.daemon.tail()}", timeout_seconds=120)


def late_epilog(observed: Observed, slurm_id: int, environment: dict[str, str]) -> None:
    """What slurmd runs when it is back."""
    slurm = {
        "SLURM_JOB_ID": str(slurm_id),
        "SLURM_CLUSTER_NAME": "trailtest",
        "SLURMD_NODENAME": observed.cluster.node_names[0],
        "SLURM_JOB_EXIT_CODE": "1792",
        "SLURM_JOB_EXIT_CODE2": "7:0",
        "SLURM_SCRIPT_CONTEXT": "epilog_slurmd",
    }
    subprocess.run([HOOKS / "epilog.sh"], env={**environment, **slurm}, check=True, timeout=60)


def test_a_job_without_epilog_is_closed_and_its_late_epilog_still_counts() -> None:
    """Its cgroup was removed when it ended: the end lies between the last sample and the first look that missed it."""
    with cluster_without_epilog("Contain,Alloc") as (observed, environment):
        slurm_id = observed.cluster.submit("date +%s.%N; sleep 3; date +%s.%N; exit 7")
        observed.cluster.wait_finished(slurm_id)
        job = closed(observed, slurm_id)
        assert (job["state"], job["verdict"], job["end_inferred"]) == ("ended", "unknown", True)
        # Not the time at which it was closed, which is GONE_SECONDS after the look that missed its cgroup.
        assert 0 < (job["end_time"] - job["end_not_before"]).total_seconds() < GONE_SECONDS
        began, ended = map(float, observed.cluster.output(slurm_id).split())
        assert job["start_time"].timestamp() < began
        assert job["start_time"] < job["end_not_before"]
        assert ended < job["end_time"].timestamp()
        late_epilog(observed, slurm_id, environment)
        told = observed.settled(slurm_id)
        assert (told["run"], told["verdict"], told["exit_code"]) == (1, "failed", 7)
        assert observed.rebuild_check()["differing"] == 0


def test_a_job_that_has_no_cgroup_between_its_steps_is_not_closed() -> None:
    """Without an extern step slurmstepd removes the job's cgroup with its last step; the next makes it anew."""
    with (
        cluster_without_epilog("Alloc") as (observed, _),
        observed.cluster.start_program("salloc", "-n1", "sh", "-c", TWO_STEPS) as program,
    ):
        slurm_id = program.job_id()
        assert program.wait() == 0
        kinds = [row["event_kind"] for row in observed.trail(slurm_id)]
        assert kinds == ["job_started"]

        def away() -> bool:
            times = [row["sampled_at"] for row in observed.samples(slurm_id)]
            return any((later - earlier).total_seconds() > GONE_SECONDS for earlier, later in pairwise(times))

        wait_until(away, "the samples around a time without a cgroup, longer than the grace")
