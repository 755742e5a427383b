"""Whose process is it: a process on a GPU is a job's by its cgroup, or by the process it descends from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from jobtrail.core.gpu.ports import ProcessPlace
from jobtrail.core.ports import OpenRun

_SLURM_JOB = re.compile(r"slurm-([0-9]{1,10})")


class Owners:
    """Finds the run a process belongs to. Slurm's directory of a job is `job_<id>`, from 26.05 on its SLUID."""

    def __init__(self, runs: Iterable[OpenRun]) -> None:
        self._by_directory: dict[str, str] = {}
        self._by_pid: dict[int, str] = {}
        self._by_path: dict[str, str] = {}
        for run in runs:
            target = run.target
            slurm = _SLURM_JOB.fullmatch(target.job_id)
            if slurm is not None:
                self._by_directory[f"job_{slurm[1]}"] = target.ref
            if target.sluid:
                self._by_directory[target.sluid] = target.ref
            if target.whereabouts.root_pid is not None:
                self._by_pid[target.whereabouts.root_pid] = target.ref
            if target.whereabouts.cgroup_path:
                self._by_path[target.whereabouts.cgroup_path.rstrip("/")] = target.ref

    def owner(self, place: ProcessPlace) -> str | None:
        """The ref of the run, None for a process of no run."""
        for path in place.cgroups:
            parts = path.split("/")
            for number, part in enumerate(parts):
                if part in self._by_directory and _is_slurms(parts[:number]):
                    return self._by_directory[part]
            for length in range(len(parts), 1, -1) if self._by_path else ():
                beginning = "/".join(parts[:length])
                if beginning in self._by_path:
                    return self._by_path[beginning]
        return next((self._by_pid[pid] for pid in place.ancestors if pid in self._by_pid), None)

    def all(self, places: Mapping[int, ProcessPlace]) -> dict[int, str]:
        """The run of each process that belongs to one."""
        found = {pid: self.owner(place) for pid, place in places.items()}
        return {pid: ref for pid, ref in found.items() if ref is not None}


def _is_slurms(parts: Sequence[str]) -> bool:
    """Whether directories lead into the one in which slurmd keeps those of jobs.

    Below user.slice they cannot: there a user may make directories of any name (user@.service(5), Delegate=).
    """
    if "user.slice" in parts:
        return False
    return any(part == "slurm" or part.startswith("slurm_") or part.endswith("slurmstepd.scope") for part in parts)
