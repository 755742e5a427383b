"""A job's counters in cgroup v2 (the kernel's cgroup-v2.rst and accounting/psi.rst). All count what lies below, too."""

from __future__ import annotations

from collections.abc import Callable

from jobtrail.adapters.cgroup.files import (
    GONE_ERRORS,
    NOT_UNDERSTOOD,
    Absent,
    CounterSet,
    OpenFiles,
    Planned,
    Values,
    error_name,
)  # fmt: skip
from jobtrail.adapters.cgroup.parse import io_stat, keyed, limit, pressure, single
from jobtrail.adapters.cgroup.subtree import Subtree

_NO_MEMORY = "no memory controller"
_NO_IO = "no io controller"
_NO_PIDS = "no pids controller"
_NO_PRESSURE = "no pressure stall information"


def _pressure(resource: str) -> Planned:
    some, full = f"pressure_{resource}_some_us", f"pressure_{resource}_full_us"
    return Planned(f"{resource}.pressure", (some, full), pressure(some, full), missing=_NO_PRESSURE)


_CPU_USAGE = ("cpu_usage_us", "usage_usec", 1)
PLAN: tuple[Planned, ...] = (
    Planned(
        "cpu.stat",
        ("cpu_usage_us", "cpu_user_us", "cpu_system_us", "cpu_throttled_periods", "cpu_throttled_us"),
        keyed(
            _CPU_USAGE,
            ("cpu_user_us", "user_usec", 1),
            ("cpu_system_us", "system_usec", 1),
            ("cpu_throttled_periods", "nr_throttled", 1),
            ("cpu_throttled_us", "throttled_usec", 1),
            missing="no cpu controller",
        ),
    ),
    Planned("memory.current", ("memory_current_bytes",), single("memory_current_bytes"), missing=_NO_MEMORY),
    Planned("memory.peak", ("memory_peak_bytes",), single("memory_peak_bytes"), missing="no memory.peak (Linux 5.19+)"),
    Planned("memory.max", ("memory_limit_bytes",), limit("memory_limit_bytes"), missing=_NO_MEMORY),
    Planned(
        "memory.stat",
        ("memory_rss_bytes", "memory_cache_bytes", "memory_shmem_bytes"),
        keyed(
            ("memory_rss_bytes", "anon", 1),
            ("memory_cache_bytes", "file", 1),
            ("memory_shmem_bytes", "shmem", 1),
            missing="no such key in memory.stat",
        ),
        missing=_NO_MEMORY,
    ),
    Planned(
        "memory.events",
        ("oom_kills",),
        keyed(("oom_kills", "oom_kill", 1), missing="no oom_kill in memory.events"),
        missing=_NO_MEMORY,
    ),
    Planned(
        "io.stat",
        ("io_read_bytes", "io_write_bytes"),
        io_stat("io_read_bytes", "io_write_bytes"),
        missing=_NO_IO,
    ),
    Planned("pids.current", ("threads",), single("threads"), missing=_NO_PIDS),
    _pressure("cpu"),
    _pressure("memory"),
    _pressure("io"),
)
PARENT_PLAN = (Planned("cpu.stat", ("cpu_usage_us",), keyed(_CPU_USAGE, missing="no usage_usec")),)


TRIES = 3  # a directory may be replaced between two steps of one look, though hardly twice


class V2Job:
    """The counters of one job. `place()` gives its directory, or None."""

    source = "cgroup_v2"

    def __init__(self, place: Callable[[], str | None], budget: OpenFiles) -> None:
        """Look for the directory. Raises OSError, and what `place` raises."""
        self._place = place
        self._budget = budget
        self._counters: CounterSet | None = None
        self._subtree: Subtree | None = None
        self.look_again()

    @property
    def found(self) -> bool:
        """Whether the directory is there."""
        return self._counters is not None

    @property
    def directory(self) -> str | None:
        """The job's directory, whose parent counts the CPU time of all jobs."""
        return None if self._counters is None else self._counters.path

    def look_again(self) -> None:
        """Find the directory, or the files that were not there so far."""
        if self._counters is not None:
            self._counters.look_again()
        else:
            self._open()

    def _open(self) -> CounterSet | None:
        if self._subtree is not None:
            self._subtree.close()
        self._counters = self._subtree = None
        path = self._place()
        if path is None:
            return None
        try:
            self._counters = CounterSet(path, PLAN, self._budget)
        except OSError as error:
            if error.errno in GONE_ERRORS:
                return None
            raise
        self._subtree = Subtree(path, self._budget, v2=True)
        return self._counters

    def read(self, values: Values, absent: Absent) -> bool:
        """Add all values and the reasons for those that lack. False when the job is gone. Raises OSError."""
        one = self._counters or self._open()
        for _ in range(TRIES):
            if one is None or one.read(values, absent):
                break
            one.close()
            one = self._open()
        if one is None or self._subtree is None:
            return False
        try:
            processes = self._subtree.count(("cgroup.procs",))["cgroup.procs"]
        except OSError as error:
            absent["processes"] = error_name(error)
            return True
        if processes is None:
            absent["processes"] = NOT_UNDERSTOOD
        else:
            values["processes"] = processes
        return True

    def cpu_usage_us(self) -> int | None:
        """The job's CPU counter alone; None where it cannot be read."""
        one = self._counters or self._open()
        usage = None if one is None else one.read_field("cpu_usage_us")
        if usage is None and one is not None and not one.alive():
            one.close()
            one = self._open()
            usage = None if one is None else one.read_field("cpu_usage_us")
        return usage

    def close(self) -> None:
        """Let all descriptors go."""
        if self._counters is not None:
            self._counters.close()
        if self._subtree is not None:
            self._subtree.close()
