"""Finds the jobs of Slurm whose cgroups lie on this node."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jobtrail.adapters.cgroup.files import OpenFiles, read_path
from jobtrail.adapters.cgroup.layout import V1_CONTROLLERS, Layout, subdirectories
from jobtrail.adapters.cgroup.subtree import Subtree, SubtreeChangedError, populated
from jobtrail.domain.samples import FoundJob

_JOB = re.compile(r"job_([0-9]{1,10})")
_UID = re.compile(r"uid_([0-9]{1,10})")
_STEPD_TITLE = re.compile(rb"slurmstepd: \[([0-9]{1,10})[. \]]")


def scan_v1(layout: Layout, node: str | None) -> dict[str, FoundJob]:
    """Jobs by public id. Populated: any process in any controller, be it only the extern step's `sleep`."""
    found: dict[str, FoundJob] = {}
    for controller in V1_CONTROLLERS:
        for parent in layout.v1_parents(node, controller):
            for uid_name in subdirectories(parent):
                uid = _UID.fullmatch(uid_name)
                for job_name in subdirectories(f"{parent}/{uid_name}") if uid else []:
                    if uid and (job := _JOB.fullmatch(job_name)):
                        _note(found, int(job[1]), int(uid[1]), f"{parent}/{uid_name}/{job_name}")
    return found


def _note(found: dict[str, FoundJob], number: int, uid: int, path: str) -> None:
    job_id = f"slurm-{number}"
    known = found.get(job_id)
    if known is not None and known.populated:
        return
    alive = _any_process(path)
    if known is None or alive:
        found[job_id] = FoundJob(job_id=job_id, uid=uid, path=path if known is None else known.path, populated=alive)


def _any_process(path: str) -> bool | None:
    subtree = Subtree(path, OpenFiles(0), v2=False)
    try:
        count = subtree.count(("cgroup.procs",))["cgroup.procs"]
    except OSError:
        return None
    return None if count is None else count > 0


def scan_v2(layout: Layout, node: str | None, proc: Path) -> dict[str, FoundJob]:
    """Jobs by public id; populated as cgroup.events says, which counts the extern step's `sleep`, too."""
    found: dict[str, FoundJob] = {}
    for scope in layout.scopes(node):
        for name in subdirectories(scope):
            path = f"{scope}/{name}"
            job = _JOB.fullmatch(name)
            number = int(job[1]) if job else _number_by_stepd(path, proc)
            if number is not None:
                found.setdefault(
                    f"slurm-{number}",
                    FoundJob(
                        job_id=f"slurm-{number}",
                        uid=None,
                        path=path,
                        populated=populated(path),
                        sluid=None if job else name,
                    ),
                )
    return found


def _number_by_stepd(path: str, proc: Path) -> int | None:
    """The job number of a directory named by SLUID, from the title of a slurmstepd in it (`slurmstepd: [123.batch]`).

    None where the directory holds no steps (`system` and `slurmd` lie beside the jobs) or no slurmstepd is left.
    """
    if not any(name.startswith("step_") for name in subdirectories(path)):
        return None
    try:
        directories = Subtree(path, OpenFiles(0), v2=False).paths()
    except (OSError, SubtreeChangedError):
        return None
    for directory in directories:
        try:
            pids = read_path(f"{directory}/cgroup.procs").split()
        except OSError:
            continue
        for pid in pids:
            title = _title(proc, pid)
            if title is not None:
                return title
    return None


def _title(proc: Path, pid: bytes) -> int | None:
    if not pid.isdigit():
        return None
    try:
        match = _STEPD_TITLE.match(read_path(f"{proc}/{os.fsdecode(pid)}/cmdline"))
    except OSError:
        return None
    return None if match is None else int(match[1])
