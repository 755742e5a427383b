"""What only a walk over a job's cgroups tells: how many processes and threads there are."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress

from jobtrail.adapters.cgroup.files import (
    GONE_ERRORS,
    CounterFile,
    OpenFiles,
    read_from,
    read_path,
)
from jobtrail.adapters.cgroup.parse import keyed, number

MOST_DIRECTORIES = 10_000
_Stamp = tuple[int, int, int]


class SubtreeChangedError(Exception):
    """A directory vanished between being listed and being read."""


def _nothing(_data: bytes, _values: dict[str, int], _absent: dict[str, str]) -> None:
    """The lists of a subtree are counted, not parsed."""


class _Directory:
    """A directory below the job. Its number of links tells how many directories lie in it (kernfs), or its time of
    change does (other file systems). The descriptor spares resolving a long path at each look."""

    def __init__(self, path: str, budget: OpenFiles) -> None:
        self.path = path
        self._budget = budget
        self.fd = budget.keep_directory(path)
        self._lists: dict[str, CounterFile] = {}
        self._stamp = self._now()

    def changed(self) -> bool:
        return self._now() != self._stamp

    def _now(self) -> _Stamp:
        status = os.fstat(self.fd) if self.fd >= 0 else os.stat(self.path)  # noqa: PTH116 - a Path costs more
        return status.st_ino, status.st_nlink, status.st_mtime_ns

    def fresh(self, name: str) -> bytes:
        return read_from(self.fd, name) if self.fd >= 0 else read_path(f"{self.path}/{name}")

    def kept(self, name: str) -> bytes:
        one = self._lists.get(name)
        if one is None:
            one = CounterFile(f"{self.path}/{name}", (), _nothing, self._budget)
            one.open()
            self._lists[name] = one
        return one.read()

    def close(self) -> None:
        for one in self._lists.values():
            one.close()
        if self.fd >= 0:
            os.close(self.fd)
            self._budget.kept -= 1
            self.fd = -1


class Subtree:
    """A cgroup directory and all below it, listed anew only when one of them changed.

    v1: `cgroup.procs` and `tasks` are opened at each look, because the kernel keeps the list of an open one for up to
    a second after its last use (kernel/cgroup/cgroup-v1.c, CGROUP_PIDLIST_DESTROY_DELAY).
    v2: they are kept open, and `cgroup.stat` of the top tells whether there are more or fewer directories now; one
    replaced by another shows as ENODEV from its open list.
    """

    def __init__(self, path: str, budget: OpenFiles, *, v2: bool) -> None:
        self.path = path
        self._budget = budget
        self._v2 = v2
        self._directories: list[_Directory] = []
        self._census = CounterFile(f"{path}/cgroup.stat", (), keyed(("n", "nr_descendants", 1), missing=""), budget)
        self._counted: int | None = None

    def count(self, names: Sequence[str]) -> dict[str, int | None]:
        """Ids in all files of each name; None where one holds something else. Raises OSError, also when gone."""
        for _ in range(3):
            try:
                return self._count(names)
            except SubtreeChangedError:
                self.close()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), self.path)

    def paths(self) -> list[str]:
        """All directories, the top first. Raises OSError."""
        self._refresh()
        return [directory.path for directory in self._directories]

    def _count(self, names: Sequence[str]) -> dict[str, int | None]:
        self._refresh()
        totals: dict[str, int | None] = dict.fromkeys(names, 0)
        for directory in self._directories:
            for name in names:
                data = self._list(directory, name)
                total = totals[name]
                if total is not None:
                    malformed = data.translate(None, b"0123456789\n")
                    totals[name] = None if malformed else total + data.count(b"\n")
        return totals

    def _list(self, directory: _Directory, name: str) -> bytes:
        try:
            return directory.kept(name) if self._v2 else directory.fresh(name)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return b""  # a threaded cgroup: its processes are listed where the threaded subtree begins
            if error.errno in GONE_ERRORS and directory.path != self.path:
                raise SubtreeChangedError from error
            raise

    def _refresh(self) -> None:
        if self._directories and not self._changed():
            return
        self.close()
        if self._v2:
            with suppress(OSError):
                self._census.open()
            self._counted = self._descendants()
        self._add(self.path)

    def _changed(self) -> bool:
        if self._counted is not None:
            return self._descendants() != self._counted
        try:
            return any(directory.changed() for directory in self._directories)
        except OSError:
            return True

    def _descendants(self) -> int | None:
        """Of the kernel's own file only: a copied one does not follow its tree."""
        if self._census.fd < 0:
            return None
        values: dict[str, int] = {}
        try:
            self._census.parse(self._census.read(), values, {})
        except OSError:
            return None
        return values.get("n")

    def _add(self, path: str) -> None:
        if len(self._directories) >= MOST_DIRECTORIES:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), self.path)
        try:
            self._directories.append(_Directory(path, self._budget))
            with os.scandir(path) as entries:
                children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno in GONE_ERRORS and path != self.path:
                raise SubtreeChangedError from error
            raise
        for child in children:
            self._add(child)

    def close(self) -> None:
        """Let all descriptors go, and walk again at the next look."""
        for directory in self._directories:
            directory.close()
        self._directories = []
        self._census.close()
        self._counted = None


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
