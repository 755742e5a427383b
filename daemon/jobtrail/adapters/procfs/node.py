"""The node's own counters from /proc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobtrail.adapters.procfs.fields import LARGEST, NOT_UNDERSTOOD, US_PER_TICK, kib, number, reason_of, wall_clock_us
from jobtrail.domain.samples import NodeReading


class NodeProc:
    """NodeSource from /proc/stat, /proc/meminfo and /proc/loadavg (proc(5))."""

    def __init__(self, root: Path = Path("/proc"), *, clock_us: Callable[[], int] = wall_clock_us) -> None:
        self._root = root
        self._clock_us = clock_us

    def read_node(self) -> NodeReading:
        """One look. CPU time is busy when neither idle nor waiting for I/O; memory is used when not MemAvailable."""
        absent: dict[str, str] = {}
        time_us = self._clock_us()
        busy, total, cpus = self._cpu(absent)
        memory_total, memory_used = self._memory(absent)
        return NodeReading(
            time_us=time_us,
            cpu_busy_us=busy,
            cpu_total_us=total,
            cpus=cpus,
            memory_total_bytes=memory_total,
            memory_used_bytes=memory_used,
            load_1m=self._load(absent),
            absent=absent,
        )

    def _content(self, name: str, fields: tuple[str, ...], absent: dict[str, str]) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            absent.update(dict.fromkeys(fields, reason_of(error)))
            return None

    def _cpu(self, absent: dict[str, str]) -> tuple[int | None, int | None, int | None]:
        data = self._content("stat", ("cpu_busy_us", "cpu_total_us", "cpus"), absent)
        if data is None:
            return None, None, None
        lines = [line.split() for line in data.split(b"\n") if line.startswith(b"cpu")]
        cpus = sum(1 for words in lines if words[0][3:].isdigit())
        if not cpus:
            absent["cpus"] = "no line of a single CPU in stat"
        # user nice system idle iowait irq softirq steal; guest times are part of user and nice already
        first = next((words[1:9] for words in lines if words[0] == b"cpu"), [])
        ticks = [value for word in first if (value := number(word)) is not None]
        if len(ticks) < 8 or sum(ticks) > LARGEST // US_PER_TICK:
            absent["cpu_busy_us"] = absent["cpu_total_us"] = NOT_UNDERSTOOD
            return None, None, cpus or None
        total = sum(ticks)
        return (total - ticks[3] - ticks[4]) * US_PER_TICK, total * US_PER_TICK, cpus or None

    def _memory(self, absent: dict[str, str]) -> tuple[int | None, int | None]:
        data = self._content("meminfo", ("memory_total_bytes", "memory_used_bytes"), absent)
        if data is None:
            return None, None
        total, available = kib(b"\n" + data, b"MemTotal"), kib(b"\n" + data, b"MemAvailable")
        if total is None:
            absent["memory_total_bytes"] = "no MemTotal in meminfo"
        if total is None or available is None or available > total:
            absent["memory_used_bytes"] = "no MemTotal and MemAvailable in meminfo"
            return total, None
        return total, total - available

    def _load(self, absent: dict[str, str]) -> float | None:
        data = self._content("loadavg", ("load_1m",), absent)
        if data is None:
            return None
        whole, point, part = (data.split() or [b""])[0].partition(b".")
        if point and whole.isdigit() and part.isdigit() and len(data) < 1_000:
            return float(b"%s.%s" % (whole, part))
        absent["load_1m"] = NOT_UNDERSTOOD
        return None
