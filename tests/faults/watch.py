"""Watches a daemon while faults happen: memory, descriptors and disk five times a second, and the time of a scrape."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.faults.figures import percentile

EVERY_SECONDS = 0.2
MAX_RSS_BYTES = 160 * 1024 * 1024
MAX_DESCRIPTORS = 512
SLOW_SCRAPE_SECONDS = 2.0  # beside what the daemon, ready to run, waited for one of the machine's processors
GIVE_UP_SECONDS = 30.0
WAL_BYTES = 16 * 1024 * 1024  # the write-ahead log, at most twice its limit while a checkpoint waits
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class _Due:
    """When an answer is due: later by as long as the daemon's threads were ready and had no processor.

    That is the second number of a thread's schedstat (Documentation/scheduler/sched-stats.rst); without it nothing is
    added. Any thread counts, because the one that has Python's lock keeps the others waiting.
    """

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._began, self._waited = time.monotonic(), self._waited_seconds()

    def _waited_seconds(self) -> float:
        waited = 0
        for task in self._tasks.glob("*/schedstat"):
            with suppress(OSError, ValueError, IndexError):
                waited += int(task.read_text(encoding="ascii").split()[1])
        return waited / 1e9

    def is_over(self) -> bool:
        """Whether it is late."""
        late = time.monotonic() - self._began
        return late > min(GIVE_UP_SECONDS, SLOW_SCRAPE_SECONDS + max(0.0, self._waited_seconds() - self._waited))


class Watch(threading.Thread):
    """Samples until stopped. `paused`: scrapes of a daemon that is frozen on purpose are not counted."""

    def __init__(self, pid: Callable[[], int | None], api: Path, spool: Path) -> None:
        super().__init__(name="watch", daemon=True)
        self._pid, self._api, self._spool = pid, api, spool
        self._stop_wanted = threading.Event()
        self.paused = threading.Event()
        self.scrapes: list[float] = []
        self.unanswered = 0  # scrapes of a living, unfrozen daemon that took too long
        self.rss_bytes = self.descriptors = self.disk_bytes = 0

    def run(self) -> None:
        """The thread's life."""
        while not self._stop_wanted.wait(EVERY_SECONDS):
            if (pid := self._pid()) is not None:
                with suppress(OSError, ValueError, IndexError):  # it was killed while we looked
                    self._look(pid)
                self._scrape(pid)

    def stop(self) -> None:
        """End, and wait for it."""
        self._stop_wanted.set()
        if self.is_alive():
            self.join(SLOW_SCRAPE_SECONDS + 5)

    def _look(self, pid: int) -> None:
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        self.rss_bytes = max(self.rss_bytes, rss)
        self.descriptors = max(self.descriptors, len(os.listdir(f"/proc/{pid}/fd")))
        used = 0
        for path in self._spool.glob("spool.db*"):
            with suppress(FileNotFoundError):
                used += path.stat().st_size
        self.disk_bytes = max(self.disk_bytes, used)

    def _scrape(self, pid: int) -> None:
        began = time.monotonic()
        due = _Due(pid)
        frozen = self.paused.is_set()
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(EVERY_SECONDS)
                connection.connect(str(self._api))
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                page = b""
                while part := self._more(connection, due):
                    page += part
        except TimeoutError:
            self.unanswered += due.is_over() and not frozen and not self.paused.is_set() and self._pid() == pid
            return
        except OSError:  # nobody listens now, or it was killed meanwhile
            return
        if page.startswith(b"HTTP/1.1 200"):
            self.scrapes.append(time.monotonic() - began)

    def _more(self, connection: socket.socket, due: _Due) -> bytes:
        """What comes next of an answer. Raises TimeoutError when it is due, or the daemon is frozen on purpose."""
        while True:
            over = due.is_over()  # asked before: what came while nobody ran here came in time
            with suppress(TimeoutError):
                return connection.recv(65536)
            if self.paused.is_set() or self._stop_wanted.is_set() or over:
                raise TimeoutError

    def problems(self, *, max_bytes: int, max_rss_bytes: int = MAX_RSS_BYTES) -> list[str]:
        """What went beyond its bound (I7, I9)."""
        found = []
        if self.rss_bytes > max_rss_bytes:
            found.append(f"I7: {self.rss_bytes} bytes of memory, more than {max_rss_bytes}")
        if self.descriptors > MAX_DESCRIPTORS:
            found.append(f"I7: {self.descriptors} open descriptors, more than {MAX_DESCRIPTORS}")
        if self.disk_bytes > max_bytes + WAL_BYTES:
            found.append(f"I7: {self.disk_bytes} bytes of spool, more than {max_bytes} plus its log's {WAL_BYTES}")
        if self.unanswered:
            found.append(f"I9: {self.unanswered} scrapes took more than {SLOW_SCRAPE_SECONDS} s")
        return found

    def figures(self) -> dict[str, float | int | None]:
        """The largest of each, and the 99th percentile of the scrapes."""
        slowest = percentile(self.scrapes, 0.99)
        return {
            "rss_mib": round(self.rss_bytes / 2**20),
            "descriptors": self.descriptors,
            "scrapes": len(self.scrapes),
            "scrape_p99_ms": None if slowest is None else round(slowest * 1000, 1),
        }
