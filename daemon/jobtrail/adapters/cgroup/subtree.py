"""What only a walk over a job's cgroups tells: how many processes and threads, and v1's kills for memory."""

from __future__ import annotations

import errno
import os

from jobtrail.adapters.cgroup.files import GONE_ERRORS, read_path
from jobtrail.adapters.cgroup.parse import keyed, number

_MOST_DIRECTORIES = 10_000
_Stamp = tuple[int, int, int]


class Subtree:
    """A cgroup directory and all below it, listed anew only when one of them changed.

    A directory's number of links tells its number of subdirectories (kernfs; most other file systems), its time of
    change does elsewhere. A directory replaced by another between two looks shows as its path failing to open.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._stamps: dict[str, _Stamp] = {}

    def directories(self) -> tuple[str, ...]:
        """The paths, the top first. Raises OSError when the top cannot be read."""
        try:
            unchanged = bool(self._stamps) and all(_stamp(path) == was for path, was in self._stamps.items())
        except OSError:
            unchanged = False
        if not unchanged:
            self._stamps = {self.path: _stamp(self.path)}
            self._add_children(self.path)
        return tuple(self._stamps)

    def inode(self, path: str) -> int:
        """The inode of one of `directories`, as of the last walk."""
        return self._stamps[path][0]

    def forget(self) -> None:
        """Walk again at the next look."""
        self._stamps = {}

    def _add_children(self, path: str) -> None:
        try:
            with os.scandir(path) as entries:
                children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno in GONE_ERRORS and path != self.path:
                return
            raise
        for child in children:
            if len(self._stamps) >= _MOST_DIRECTORIES:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), self.path)
            try:
                self._stamps[child] = _stamp(child)
            except FileNotFoundError:
                continue
            self._add_children(child)

    def count_ids(self, name: str) -> int | None:
        """Process or thread ids in all files called `name`; None where one holds something else. Raises OSError.

        The files are opened anew: v1 keeps the list of an open `cgroup.procs` or `tasks` for up to a second after its
        last use (kernel/cgroup/cgroup-v1.c, CGROUP_PIDLIST_DESTROY_DELAY).
        """
        for _ in range(3):
            total = 0
            for path in self.directories():
                try:
                    data = read_path(f"{path}/{name}")
                except OSError as error:
                    if error.errno == errno.EOPNOTSUPP:
                        continue  # a threaded cgroup: its processes are listed where the threaded subtree begins
                    if error.errno not in GONE_ERRORS or path == self.path:
                        raise
                    self.forget()
                    break
                if data.translate(None, b"0123456789\n"):
                    return None
                total += data.count(b"\n")
            else:
                return total
        return total


def _stamp(path: str) -> _Stamp:
    status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    return status.st_ino, status.st_nlink, status.st_mtime_ns


class OomKills:
    """Kills for lack of memory in a v1 memory cgroup and below it, also in cgroups that have since been removed.

    v1 counts a kill in the cgroup of the victim alone (mm/memcontrol: events propagate upwards only on the unified
    hierarchy), and a job's tasks lie below its job cgroup. A kill in a step that ends before the next look is lost.
    """

    def __init__(self, path: str) -> None:
        self._subtree = Subtree(path)
        self._by_inode: dict[int, int] = {}
        self._parse = keyed(("oom_kill", "oom_kill", 1), missing="no oom_kill counter")

    def read(self) -> int | str:
        """The number of kills seen so far, or the reason why it is unknown. Raises OSError when the job is gone."""
        reason: str | None = None
        for path in self._subtree.directories():
            values: dict[str, int] = {}
            absent: dict[str, str] = {}
            try:
                data = read_path(f"{path}/memory.oom_control")
            except OSError as error:
                if error.errno not in GONE_ERRORS or path == self._subtree.path:
                    raise
                self._subtree.forget()
                continue
            self._parse(data, values, absent)
            if "oom_kill" in values:
                self._note(self._subtree.inode(path), values["oom_kill"])
            else:
                reason = absent["oom_kill"]
        return reason or sum(self._by_inode.values())

    def _note(self, inode: int, kills: int) -> None:
        self._by_inode[inode] = max(kills, self._by_inode.get(inode, 0))


def populated(directory: str) -> bool | None:
    """v2 `cgroup.events`: whether any living process is in the cgroup or below it; None where that cannot be told."""
    try:
        lines = read_path(f"{directory}/cgroup.events").split(b"\n")
    except OSError:
        return None
    for line in lines:
        if line.startswith(b"populated "):
            flag = number(line[10:])
            return None if flag is None else flag > 0
    return None
