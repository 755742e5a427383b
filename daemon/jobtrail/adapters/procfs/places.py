"""Where processes stand: their cgroups and the processes they descend from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from jobtrail.core.gpu.ports import ProcessPlace

MOST_ANCESTORS = 64
_MOST_BYTES = 65_536


class ProcessPlacesReader:
    """ProcessPlaces from /proc under `root`. Some 30 µs a process."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def places_of(self, pids: Iterable[int]) -> dict[int, ProcessPlace]:
        """Those of `pids` that run and may be looked at."""
        found = {}
        for pid in pids:
            text = self._read(pid, "cgroup")
            if text is not None:
                found[pid] = ProcessPlace(cgroups=_paths(text), ancestors=tuple(self._ancestors(pid)))
        return found

    def _ancestors(self, pid: int) -> Iterable[int]:
        for _ in range(MOST_ANCESTORS):
            yield pid
            text = self._read(pid, "stat")
            # proc_pid_stat(5): the name, in parentheses, may hold any character; the parent is the second after it.
            fields = [] if text is None else text.rpartition(")")[2].split()
            if len(fields) < 2 or not fields[1].isdecimal() or int(fields[1]) <= 1:
                return
            pid = int(fields[1])

    def _read(self, pid: int, name: str) -> str | None:
        try:
            descriptor = os.open(f"{self._root}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.read(descriptor, _MOST_BYTES).decode(errors="replace")
        except OSError:  # it ended meanwhile
            return None
        finally:
            os.close(descriptor)


def _paths(text: str) -> tuple[str, ...]:
    """The paths of a process, each once; cgroups(7): lines of `hierarchy:controllers:path`."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return tuple(dict.fromkeys(parts[2] for parts in lines if len(parts) == 3))
