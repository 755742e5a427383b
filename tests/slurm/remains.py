"""Finds and removes what a cluster left: processes (slurmstepd outlives slurmd by design), cgroups, directories."""

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.slurm.cgroups import CGROUP_MOUNT
from tests.slurm.daemons import ClusterError, poll_until

DIRECTORY_PREFIX = "jobtrail-cluster-"
# Not the caller's TMPDIR: unprivileged users must be able to reach it, and a Unix socket's path must stay short.
PARENT = Path("/tmp")


def token_of(directory: Path) -> str:
    """Return the cluster's unique token, part of its directory's name and of its nodes' names."""
    return directory.name.removeprefix(DIRECTORY_PREFIX)


def node_name(directory: Path, number: int) -> str:
    """Return the name of the cluster's node `number` (from 1); unique, because cgroups are named after nodes."""
    return f"jt{token_of(directory)}n{number}"


def slurm_conf_of(directory: Path) -> Path:
    """Return the path that SLURM_CONF names for everything that belongs to the cluster."""
    return directory / "etc" / "slurm.conf"


def cgroups_of(directory: Path) -> list[Path]:
    """Return the topmost cgroups of the cluster's nodes, in every hierarchy of cgroup v1 or in v2."""
    nodes = f"jt{token_of(directory)}n*"
    v1 = CGROUP_MOUNT.glob(f"*/slurm_{nodes}")
    v2 = CGROUP_MOUNT.glob(f"system.slice/{nodes}_slurmstepd.scope")
    return sorted({*v1, *v2})


def processes_of(directory: Path) -> dict[int, str]:
    """Return the command lines, by process id, of what runs in the cluster's cgroups or with its SLURM_CONF.

    The second covers the daemons, hooks (slurmd gives them SLURM_CONF) and whatever a hook left behind.
    """
    found: dict[int, str] = {}
    for cgroup in cgroups_of(directory):
        for procs in cgroup.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found |= {int(pid): command_line(int(pid)) for pid in procs.read_text().split()}
    mark = b"SLURM_CONF=" + os.fsencode(slurm_conf_of(directory))
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = command_line(int(entry.name))
    found.pop(os.getpid(), None)
    return found


def command_line(pid: int) -> str:
    """Return how the process was called, or a remark when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(gone)"


def kill_processes(directory: Path) -> None:
    """Kill all processes of the cluster; raise ClusterError naming those that cannot be killed."""

    def none_left() -> bool:
        left = processes_of(directory)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    try:
        poll_until(none_left, seconds=60, what=f"the processes of {directory} to end")
    except ClusterError as error:
        raise ClusterError(f"{error}: {processes_of(directory)}") from None


def remove_cgroups(directory: Path) -> None:
    """Remove the cluster's cgroups, deepest first; the kernel refuses (EBUSY) for a moment after the last exit."""

    def none_left() -> bool:
        for top in cgroups_of(directory):
            for root, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(root).rmdir()
        return not cgroups_of(directory)

    poll_until(none_left, seconds=60, what=f"the cgroups of {directory} to be removable")


def planned_directory(token: str | None = None) -> Path:
    """Return a name for a cluster's directory, one that no other has unless `token` is told; make nothing yet."""
    return PARENT / f"{DIRECTORY_PREFIX}{token or secrets.token_hex(3)}"


@contextlib.contextmanager
def made_directory(directory: Path) -> Iterator[Path]:
    """Make a cluster's directory and hold its lock; remove the cluster's remains and the directory at the end.

    The kernel lets go of the lock when the test process dies, however it dies; see remove_abandoned.
    """
    with _lock(directory):
        directory.mkdir(mode=0o755)
        try:
            yield directory
        finally:
            _remove_all(directory)


def remove_abandoned() -> list[Path]:
    """Remove clusters whose test process was killed before it could stop them; return their directories."""
    abandoned = []
    for lock in PARENT.glob(f"{DIRECTORY_PREFIX}*.lock"):
        with contextlib.suppress(BlockingIOError), _lock(lock.with_suffix("")) as directory:
            if directory.exists():
                _remove_all(directory)
                abandoned.append(directory)
    return abandoned


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[Path]:
    """Hold the lock beside `directory`; raise BlockingIOError when somebody else does."""
    path = directory.with_suffix(".lock")
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield directory
        finally:
            path.unlink()


def _remove_all(directory: Path) -> None:
    kill_processes(directory)
    remove_cgroups(directory)
    shutil.rmtree(directory)
