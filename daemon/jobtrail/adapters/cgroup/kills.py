"""Kills for lack of memory in cgroup v1."""

from __future__ import annotations

import os

from jobtrail.adapters.cgroup.files import GONE_ERRORS, CounterFile, OpenFiles, read_path
from jobtrail.adapters.cgroup.parse import keyed
from jobtrail.adapters.cgroup.subtree import Subtree, SubtreeChangedError

_PARSE = keyed(("oom_kill", "oom_kill", 1), missing="no oom_kill counter")


class NodeKills:
    """How many processes the kernel has killed for memory on the whole node: `oom_kill` of /proc/vmstat."""

    def __init__(self, proc: str) -> None:
        self._file = CounterFile(f"{proc}/vmstat", (), _PARSE, OpenFiles(1))
        self.now: int | None = None

    def look(self) -> None:
        """Read the counter once for all jobs; None where this kernel has none (before 4.13)."""
        values: dict[str, int] = {}
        try:
            if self._file.fd < 0:
                self._file.open()
            self._file.parse(self._file.read(), values, {})
        except OSError:
            self.now = None
            return
        self.now = values.get("oom_kill")

    def close(self) -> None:
        """Let the descriptor go."""
        self._file.close()


class JobKills:
    """Kills in a v1 memory cgroup and below it, also in cgroups that have since been removed.

    v1 counts a kill in the cgroup of the victim alone (mm/memcontrol: events propagate upwards only on the unified
    hierarchy), and a job's tasks lie below its job cgroup. So the cgroups below are walked, though only after a kill
    somewhere on the node. A kill in a step that ends before the next look is lost.
    """

    def __init__(self, path: str, node: NodeKills, budget: OpenFiles) -> None:
        self._node = node
        self._subtree = Subtree(path, budget, v2=False)
        self._by_inode: dict[int, int] = {}
        self._known: int | str | None = None
        self._as_of: int | None = None
        self._again = True
        with_size = os.stat(f"{path}/memory.oom_control").st_size  # noqa: PTH116 - as in the hot path
        self._copied = with_size > 0  # a copied tree does not follow the kernel's own counter

    def read(self) -> int | str:
        """The number of kills seen so far, or the reason why it is unknown. Raises OSError when the job is gone."""
        now = self._node.now
        changed = now is None or now != self._as_of
        if self._known is None or self._copied or changed or self._again:
            self._known = self._walk()
            self._again = changed  # the node's counter is raised an instant before the cgroup's: look once more
            self._as_of = now
        return self._known

    def _walk(self) -> int | str:
        reason: str | None = None
        try:
            paths = self._subtree.paths()
        except SubtreeChangedError:
            paths = [self._subtree.path]
            self._again = True
        finally:
            self._subtree.close()  # also when the job went away under the walk
        for path in paths:
            values: dict[str, int] = {}
            absent: dict[str, str] = {}
            try:
                inode = os.stat(path).st_ino  # noqa: PTH116 - as in the hot path
                _PARSE(read_path(f"{path}/memory.oom_control"), values, absent)
            except OSError as error:
                if error.errno not in GONE_ERRORS or path == self._subtree.path:
                    raise
                continue
            if "oom_kill" in values:
                self._by_inode[inode] = max(values["oom_kill"], self._by_inode.get(inode, 0))
            else:
                reason = absent["oom_kill"]
        return reason or sum(self._by_inode.values())
