"""The jobs to read: real v1 cgroups where we are root, else a copy of captured ones in a temporary directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from jobtrail.domain.samples import Target

REAL_ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpuacct", "cpu", "memory", "freezer")  # those that Slurm's plugins use
STEPS = ("step_extern", "step_batch/task_0")
COUNTERS = {
    "cpuacct": ("cpuacct.usage", "cpuacct.stat"),
    "cpu": ("cpu.stat",),
    "memory": ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.stat"),
}
PID_LISTS = ("cgroup.procs", "tasks")
CAPTURED = Path(__file__).parents[2] / "tests" / "fixtures" / "cgroup" / "v1"


class Jobs(msgspec.Struct, frozen=True):
    """Where they are, what they are called, and every file that one look at them needs."""

    root: Path
    kind: str
    targets: tuple[Target, ...]
    counters: tuple[Path, ...]
    lists: tuple[Path, ...]


@contextmanager
def jobs(count: int) -> Iterator[Jobs]:
    """That many jobs of Slurm's layout, each with a living process in a step; removed afterwards."""
    node = f"bench{os.getpid()}"
    parent = f"slurm_{node}"
    if os.geteuid() == 0 and all((REAL_ROOT / name / "cgroup.procs").exists() for name in CONTROLLERS):
        sleeper = subprocess.Popen(["sleep", "infinity"])
        try:
            for number in range(count):
                _make(REAL_ROOT, parent, number)
            _enter(parent, sleeper.pid)
            yield _described(REAL_ROOT, "real cgroup v1", node, count)
        finally:
            sleeper.kill()
            sleeper.wait()
            _remove(parent)
    else:
        with tempfile.TemporaryDirectory() as directory:
            for number in range(count):
                for controller in CONTROLLERS:
                    job = Path(directory, controller, parent, "uid_1001", f"job_{number}")
                    shutil.copytree(CAPTURED / controller / "slurm_n1/uid_1001/job_53", job)
            yield _described(Path(directory), "copied files (no root: not the kernel's own)", node, count)


def _make(root: Path, parent: str, number: int) -> None:
    for controller in CONTROLLERS:
        for step in STEPS:
            # Slurm's freezer has no task level
            name = step.partition("/")[0] if controller == "freezer" else step
            (root / controller / parent / "uid_1001" / f"job_{number}" / name).mkdir(parents=True)


def _enter(parent: str, pid: int) -> None:
    for controller in CONTROLLERS:
        step = "step_batch" if controller == "freezer" else "step_batch/task_0"
        (REAL_ROOT / controller / parent / "uid_1001/job_0" / step / "cgroup.procs").write_text(str(pid))


def _remove(parent: str) -> None:
    for controller in CONTROLLERS:
        for directory, _, _ in os.walk(REAL_ROOT / controller / parent, topdown=False):
            os.rmdir(directory)


def _described(root: Path, kind: str, node: str, count: int) -> Jobs:
    counters: list[Path] = []
    lists: list[Path] = []
    for number in range(count):
        job = Path(f"slurm_{node}", "uid_1001", f"job_{number}")
        for controller, names in COUNTERS.items():
            counters += [root / controller / job / name for name in names]
        counters += sorted((root / "memory" / job).rglob("memory.oom_control"))
        lists += [path for name in PID_LISTS for path in sorted((root / "freezer" / job).rglob(name))]
    targets = tuple(
        Target(ref=str(number), cluster="bench", job_id=f"slurm-{number}", node=node, uid=1001)
        for number in range(count)
    )
    return Jobs(root=root, kind=kind, targets=targets, counters=tuple(counters), lists=tuple(lists))
