"""Watches the server and PostgreSQL from outside, by what the kernel says of their processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")
EVERY_SECONDS = 0.5


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds so far."""

    server: float
    postgres: float
    machine: float  # of all processes


class Peaks(msgspec.Struct):
    """The most that was seen."""

    server_rss_bytes: int = 0
    server_connections: int = 0  # open descriptors that are sockets, listeners and the database's among them
    postgres_connections: int = 0  # processes of PostgreSQL that serve a client


class Watch:
    """A thread that looks twice a second."""

    def __init__(self, server: int, postmaster: Callable[[], int]) -> None:
        self._server = server
        self._postmaster = postmaster
        self._before = 0.0  # of postmasters that ended
        self._last = 0.0
        self._peaks = Peaks()
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._halt.set()
        self._thread.join(5)

    def peaks(self) -> Peaks:
        """Since the last question."""
        self._look()
        found, self._peaks = self._peaks, Peaks()
        return found

    def usage(self) -> Usage:
        """CPU so far; that of a PostgreSQL which was stopped counts on."""
        now = self._postgres_seconds()
        if now < self._last:
            self._before += self._last
        self._last = now
        return Usage(_exactly(self._server), self._before + now, _machine())

    def _run(self) -> None:
        while not self._halt.wait(EVERY_SECONDS):
            self._look()
            self.usage()

    def _look(self) -> None:
        peaks = self._peaks
        with suppress(OSError):
            pages = int(Path(f"/proc/{self._server}/statm").read_text().split()[1])
            peaks.server_rss_bytes = max(peaks.server_rss_bytes, pages * PAGE)
            peaks.server_connections = max(peaks.server_connections, len(os.listdir(f"/proc/{self._server}/fd")))
        peaks.postgres_connections = max(peaks.postgres_connections, len(self._clients()))

    def _children(self) -> list[int]:
        found = []
        with suppress(OSError, ValueError, IndexError):
            parent = str(self._postmaster())
            for status in Path("/proc").glob("[0-9]*/stat"):
                with suppress(OSError):
                    if status.read_text().rpartition(")")[2].split()[1] == parent:
                        found.append(int(status.parent.name))
        return found

    def _clients(self) -> list[int]:
        found = []
        for pid in self._children():
            with suppress(OSError):
                if b"jobtrail [local]" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def _postgres_seconds(self) -> float:
        with suppress(OSError, ValueError, IndexError):
            return _cpu(self._postmaster(), ended_too=True) + sum(map(_cpu, self._children()))
        return 0.0


def _cpu(pid: int, *, ended_too: bool = False) -> float:
    """User and system time, proc(5); `ended_too`: also of children that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11 : 15 if ended_too else 13]) / TICKS


def _machine() -> float:
    """CPU time of everything on this machine, proc(5), /proc/stat: user, nice, system, and interrupts."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[place]) for place in (1, 2, 3, 6, 7)) / TICKS


def _exactly(pid: int) -> float:
    """CPU seconds of a process' living threads, to the nanosecond: proc(5), schedstat."""
    with suppress(OSError):
        return sum(int(one.read_text().split()[0]) for one in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    return 0.0
