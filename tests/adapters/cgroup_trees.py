"""Cgroup trees for tests: copies of captured ones, laid out as Slurm does it, and real v1 cgroups of this machine.

`tests/fixtures/cgroup/v1` was captured from a running kernel (6.18) with a job of Slurm's layout: a CPU burner of one
second under a quota of half a CPU, 50 MB of memory, and a child that was killed for memory. `…/v2` has the lines of the
kernel's cgroup-v2 documentation in the layout of a real slurmd 22.05.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jobtrail.domain.events import Whereabouts
from jobtrail.domain.samples import Target
from tests.requirements import unmet

FIXTURES = Path(__file__).parent.parent / "fixtures" / "cgroup"
V1_JOB = "slurm_n1/uid_1001/job_53"
V2_JOB = "system.slice/n1_slurmstepd.scope/job_10039"
REAL_ROOT = Path("/sys/fs/cgroup")
REAL_V1_CONTROLLERS = ("cpuacct", "cpu", "memory", "freezer", "pids", "blkio")


def target(
    job_id: str = "slurm-10039",
    *,
    ref: str = "r",
    node: str = "n1",
    uid: int | None = None,
    sluid: str | None = None,
    cgroup_path: str | None = None,
    root_pid: int | None = None,
    root_pid_start_ticks: int | None = None,
) -> Target:
    """A run to look at."""
    whereabouts = Whereabouts(cgroup_path=cgroup_path, root_pid=root_pid, root_pid_start_ticks=root_pid_start_ticks)
    return Target(ref=ref, cluster="lab", job_id=job_id, node=node, uid=uid, sluid=sluid, whereabouts=whereabouts)


def copy(version: str, to: Path) -> Path:
    """A writable copy of a captured tree."""
    return Path(shutil.copytree(FIXTURES / version, to / version))


def move_v2_job(root: Path, to: str) -> Path:
    """Lay the job of the v2 tree out elsewhere."""
    new = root / to
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / V2_JOB, new)
    return new


def v1_job(root: Path, controller: str, job: str = V1_JOB) -> Path:
    """The job's directory of one controller."""
    return root / controller / job


def remove_v1_job(root: Path, job: str = V1_JOB) -> None:
    """Take the job away in every controller."""
    for controller in REAL_V1_CONTROLLERS:
        shutil.rmtree(root / controller / job)


class RealV1Job:
    """A cgroup of Slurm's layout in each v1 controller of this machine."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.controllers = REAL_V1_CONTROLLERS

    def directory(self, controller: str) -> Path:
        """The job's directory in one controller."""
        return REAL_ROOT / controller / self.path

    def make(self, below: str = "") -> None:
        """Make the directories, with steps `below` them if asked."""
        for controller in self.controllers:
            (self.directory(controller) / below).mkdir(parents=True, exist_ok=True)

    def enter(self, below: str = "") -> None:
        """Move the calling process in; for children between fork and work."""
        for controller in self.controllers:
            (self.directory(controller) / below / "cgroup.procs").write_text("0")

    def remove(self) -> None:
        """Take the directories away, and those of their parents that are empty then."""
        for controller in self.controllers:
            for directory, _, _ in os.walk(self.directory(controller), topdown=False):
                os.rmdir(directory)


@contextmanager
def real_v1_job(job_number: int) -> Iterator[RealV1Job]:
    """A job's real v1 cgroups, removed afterwards; where they cannot be made the test is skipped, in CI it fails."""
    parent = f"slurm_test{os.getpid()}"
    job = RealV1Job(f"{parent}/uid_1001/job_{job_number}")
    try:
        job.make()
    except OSError as error:
        unmet(f"no real cgroup v1 can be made: {error.filename}: {error.strerror}")
    try:
        yield job
    finally:
        job.remove()
        for controller in job.controllers:
            for directory in (REAL_ROOT / controller / parent / "uid_1001", REAL_ROOT / controller / parent):
                with suppress(OSError):  # another job of the same test is in it still
                    directory.rmdir()


def real_node() -> str:
    """The node name whose jobs `real_v1_job` makes."""
    return f"test{os.getpid()}"
