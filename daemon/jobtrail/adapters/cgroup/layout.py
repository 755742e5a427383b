"""Where the cgroups of jobs are: found by looking, because Slurm's paths differ with version and build.

v1: `<controller>/slurm[_<node>]/uid_<uid>/job_<id>`; `_<node>` only where slurmd was built with multiple-slurmd.
v2: `<slice>/[<node>_]slurmstepd.scope/job_<id>`, or `…/<SLUID>` from Slurm 26.05; the slice is system.slice unless
cgroup.conf's CgroupSlice says otherwise, and all of it may lie below the cgroup of a container.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from jobtrail.adapters.cgroup.files import GONE_ERRORS
from jobtrail.domain.samples import Target

V1_CONTROLLERS = ("cpuacct", "cpu", "memory", "blkio", "pids", "freezer", "cpuset", "devices")
SCOPE = "slurmstepd.scope"
SECONDS_BETWEEN_SEARCHES = 5.0

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SLURM_JOB = re.compile(r"slurm-([0-9]{1,10})")
_MOST_DIRECTORIES = 4_096


class RefusedError(Exception):
    """A target whose counters must not or cannot be looked for; the message says why."""


class Mounts(msgspec.Struct, frozen=True):
    """The hierarchies below a root: v1 controllers by name, and the unified one (v2 proper, or v1's hybrid)."""

    root: str
    v1: dict[str, str]
    unified: str | None


def detect(root: str) -> Mounts:
    """Look which hierarchies are mounted. Raises RefusedError when there is none."""
    if Path(root, "cgroup.controllers").exists():
        return Mounts(root, {}, root)
    try:
        entries = sorted(path.name for path in Path(root).iterdir())
    except OSError as error:
        raise RefusedError(f"{root}: {error.strerror}") from error
    v1 = {
        controller: f"{root}/{entry}"
        for entry in entries
        for controller in entry.split(",")
        if controller in V1_CONTROLLERS and Path(root, entry).is_dir()
    }
    unified = f"{root}/unified" if Path(root, "unified/cgroup.controllers").exists() else None
    if not v1 and unified is None:
        raise RefusedError(f"no cgroup hierarchy at {root}: neither cgroup.controllers nor a v1 controller is there")
    return Mounts(root, v1, unified)


def exists(directory: str) -> bool:
    """Whether there is such a directory. Raises OSError when that cannot be told."""
    try:
        return os.stat(directory).st_ino > 0  # noqa: PTH116 - a Path costs more than the call, and there are many
    except OSError as error:
        if error.errno in GONE_ERRORS:
            return False
        raise


def subdirectories(directory: str) -> list[str]:
    """Names of the directories in one, sorted; empty where it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


class Layout:
    """Finds the directories of jobs below the mounted hierarchies."""

    def __init__(self, mounts: Mounts, monotonic: Callable[[], float]) -> None:
        self.mounts = mounts
        self._monotonic = monotonic
        self._searched_at = -SECONDS_BETWEEN_SEARCHES
        self._scopes: list[str] = []

    def v1_directory(self, target: Target, controller: str) -> str | None:
        """The job's directory under a controller, if it is there. Raises RefusedError, OSError."""
        mount = self.mounts.v1.get(controller)
        if mount is None:
            return None
        if target.whereabouts.cgroup_path is not None:
            path = self._given(target.whereabouts.cgroup_path, mount)
            return path if path is not None and exists(path) else None
        job = f"job_{slurm_job_number(target)}"
        for parent in self.v1_parents(target.node, controller):
            uids = [f"uid_{target.uid}"] if target.uid is not None else subdirectories(parent)
            for uid in uids:
                if uid.startswith("uid_") and exists(f"{parent}/{uid}/{job}"):
                    return f"{parent}/{uid}/{job}"
        return None

    def v2_directory(self, target: Target) -> str | None:
        """The job's directory in the unified hierarchy, if it is there. Raises RefusedError, OSError."""
        unified = self.mounts.unified
        if unified is None:
            return None
        if target.whereabouts.cgroup_path is not None:
            path = self._given(target.whereabouts.cgroup_path, unified)
            return path if path is not None and exists(path) else None
        names = [f"job_{slurm_job_number(target)}"]
        if target.sluid and _SAFE_NAME.fullmatch(target.sluid):
            names.append(target.sluid)
        for scope in self.scopes(target.node):
            for name in names:
                if exists(f"{scope}/{name}"):
                    return f"{scope}/{name}"
        return None

    def v1_parents(self, node: str | None, controller: str) -> list[str]:
        """Directories that hold Slurm's v1 jobs of a node, its own name first; of any node for None."""
        mount = self.mounts.v1.get(controller)
        if mount is None:
            return []
        if node is None:
            found = [name for name in subdirectories(mount) if name == "slurm" or name.startswith("slurm_")]
        else:
            found = [f"slurm_{node}"] if _SAFE_NAME.fullmatch(node) else []
            found.append("slurm")
        return [f"{mount}/{name}" for name in found]

    def scopes(self, node: str | None) -> Iterator[str]:
        """Slurm's v2 scopes of a node, the one of its own name first; of any node for None.

        The usual places come without a search, so a job's scope made a moment ago is found at once.
        """
        unified = self.mounts.unified
        if unified is None:
            return
        names = [SCOPE]
        if node is not None and _SAFE_NAME.fullmatch(node):
            names.insert(0, f"{node}_{SCOPE}")
        usual = [f"{unified}/system.slice/{name}" for name in names]
        if node is not None:
            yield from usual
        found = self._search(unified)
        if node is None:
            yield from found
            return
        for name in names:
            yield from (scope for scope in found if scope.rpartition("/")[2] == name and scope not in usual)

    def _search(self, unified: str) -> list[str]:
        """All scopes of slurmstepd in slices, up to two levels down for a container's own cgroup. At most each 5 s."""
        now = self._monotonic()
        if now - self._searched_at < SECONDS_BETWEEN_SEARCHES:
            return self._scopes
        self._searched_at = now
        level = [unified]
        scopes: list[str] = []
        visited = 0
        for depth in range(4):
            below: list[str] = []
            for directory in level:
                visited += 1
                if visited > _MOST_DIRECTORIES:
                    break
                for name in subdirectories(directory):
                    if name.endswith(SCOPE):
                        scopes.append(f"{directory}/{name}")
                    elif depth < 2 or name.endswith(".slice"):
                        below.append(f"{directory}/{name}")
            level = below
        self._scopes = scopes
        return scopes

    def _given(self, given: str, mount: str) -> str | None:
        """A path an event gave, under `mount`; None when it names the other kind of hierarchy. Raises RefusedError."""
        root = self.mounts.root
        try:
            inside = given.removeprefix(root) if given.startswith(root + "/") else given
            parts = [part for part in inside.split("/") if part not in {"", "."}]
            if ".." in parts:
                raise RefusedError(f"cgroup_path {given!r} is outside {root}: it must not contain '..'")
            if parts and mount != root and (parts[0] == "unified" or set(parts[0].split(",")) <= set(V1_CONTROLLERS)):
                if (parts[0] == "unified") != (mount == self.mounts.unified):
                    return None
                parts = parts[1:]
            if not parts:
                raise RefusedError(f"cgroup_path {given!r} is the root cgroup, which holds every process of the node")
            path = "/".join((mount, *parts))
            if not os.path.realpath(path).startswith(os.path.realpath(root) + "/"):
                raise RefusedError(f"cgroup_path {given!r} is outside {root}")
        except ValueError as error:  # a NUL, or a character no file name can have
            raise RefusedError(f"cgroup_path {given!r}: {error}") from error
        return path


def slurm_job_number(target: Target) -> int:
    """Slurm's number of a job. Raises RefusedError for ids that are not Slurm's."""
    match = _SLURM_JOB.fullmatch(target.job_id)
    if match is None:
        raise RefusedError(f"job_id {target.job_id!r} is not slurm-<number>, and no cgroup_path was given")
    return int(match[1])
