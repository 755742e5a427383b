"""A job's counters in cgroup v1: one directory per controller, each found and lost on its own.

Sources: the kernel's cgroup-v1/{cpuacct,memory,blkio-controller}.rst. Values are hierarchical: cpuacct and the
`total_` lines of memory.stat count what lies below, so the job level holds what ended steps used.
blkio counts what a process itself sends to a device: reads and direct writes. Buffered writes are written back later by
the kernel and charged to the root cgroup, so `io_write_bytes` leaves them out; only v2 charges them to the writer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

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
from jobtrail.adapters.cgroup.kills import JobKills, NodeKills
from jobtrail.adapters.cgroup.parse import io_service_bytes, keyed, limit, single, ticks
from jobtrail.adapters.cgroup.subtree import Subtree

PLANS: dict[str, tuple[Planned, ...]] = {
    "cpuacct": (
        Planned("cpuacct.usage", ("cpu_usage_us",), single("cpu_usage_us", divide_by=1_000)),
        Planned("cpuacct.stat", ("cpu_user_us", "cpu_system_us"), ticks("cpu_user_us", "cpu_system_us")),
    ),
    "cpu": (
        Planned(
            "cpu.stat",
            ("cpu_throttled_periods", "cpu_throttled_us"),
            keyed(
                ("cpu_throttled_periods", "nr_throttled", 1),
                ("cpu_throttled_us", "throttled_time", 1_000),
                missing="no CPU bandwidth control",
            ),
        ),
    ),
    "memory": (
        Planned("memory.usage_in_bytes", ("memory_current_bytes",), single("memory_current_bytes")),
        Planned("memory.max_usage_in_bytes", ("memory_peak_bytes",), single("memory_peak_bytes")),
        Planned("memory.limit_in_bytes", ("memory_limit_bytes",), limit("memory_limit_bytes")),
        Planned(
            "memory.stat",
            ("memory_rss_bytes", "memory_cache_bytes", "memory_shmem_bytes"),
            keyed(
                ("memory_rss_bytes", "total_rss", 1),
                ("memory_cache_bytes", "total_cache", 1),
                ("memory_shmem_bytes", "total_shmem", 1),
                missing="no such key in memory.stat",
            ),
        ),
    ),
    "blkio": (
        Planned(
            "blkio.throttle.io_service_bytes_recursive",
            ("io_read_bytes", "io_write_bytes"),
            io_service_bytes("io_read_bytes", "io_write_bytes"),
            missing="this kernel has no recursive blkio counters",
        ),
    ),
    "pids": (Planned("pids.current", ("threads",), single("threads")),),
}
PARENT_PLAN = PLANS["cpuacct"][:1]

METERS = ("cpuacct", "cpu", "memory", "blkio", "pids")
HOLDERS_OF_PIDS = ("freezer", *METERS, "cpuset", "devices")  # Slurm puts a job's processes into freezer always
TRIES = 3  # a directory may be replaced between two steps of one look, though hardly twice
PID_LISTS = {"cgroup.procs": "processes", "tasks": "threads"}
NO_PRESSURE = dict.fromkeys(
    (f"pressure_{resource}_{kind}_us" for resource in ("cpu", "memory", "io") for kind in ("some", "full")),
    "not in cgroup v1",
)


def _fields(controller: str) -> tuple[str, ...]:
    own = tuple(field for planned in PLANS[controller] for field in planned.fields)
    return (*own, "oom_kills") if controller == "memory" else own


class V1Job:
    """The counters of one job. `place(controller)` gives its directory there, or None."""

    source = "cgroup_v1"

    def __init__(self, place: Callable[[str], str | None], budget: OpenFiles, node_kills: NodeKills) -> None:
        """Look in every controller. Raises OSError, and what `place` raises."""
        self._place = place
        self._budget = budget
        self._node_kills = node_kills
        self._meters: dict[str, CounterSet] = {}
        self._kills: JobKills | None = None
        self._pids: Subtree | None = None
        self._was_metered = False
        self._missing: Absent = {}
        self.look_again()

    @property
    def found(self) -> bool:
        """Whether any directory is there. Where counters were, a left-over freezer directory is no job."""
        return bool(self._meters) or (self._pids is not None and not self._was_metered)

    @property
    def directory(self) -> str | None:
        """The job's directory among cpuacct's, whose parent counts the CPU time of all jobs."""
        cpuacct = self._meters.get("cpuacct")
        return None if cpuacct is None else cpuacct.path

    def look_again(self) -> None:
        """Find what was not there so far: Slurm makes the directories of a job one after the other."""
        for controller in METERS:
            if controller in self._meters:
                self._meters[controller].look_again()
            else:
                self._open(controller)
        if self._pids is None:
            self._find_pids()

    def _open(self, controller: str) -> CounterSet | None:
        self._meters.pop(controller, None)
        self._missing.update(dict.fromkeys(_fields(controller), f"no {controller} cgroup"))
        path = self._place(controller)
        if path is None:
            return None
        try:
            opened = CounterSet(path, PLANS[controller], self._budget)
        except OSError as error:
            if error.errno in GONE_ERRORS:
                return None
            raise
        self._meters[controller] = opened
        self._was_metered = True
        for field in _fields(controller):
            self._missing.pop(field, None)
        if controller == "memory":
            self._count_kills(path)
        return opened

    def _count_kills(self, path: str) -> None:
        try:
            self._kills = JobKills(path, self._node_kills, self._budget)
        except OSError as error:
            self._kills = None
            self._missing["oom_kills"] = error_name(error)

    def _find_pids(self) -> None:
        paths = (self._place(controller) for controller in HOLDERS_OF_PIDS)
        path = next((path for path in paths if path is not None), None)
        if self._pids is not None:
            self._pids.close()
        self._pids = None if path is None else Subtree(path, self._budget, v2=False)

    def read(self, values: Values, absent: Absent) -> bool:
        """Add all values and the reasons for those that lack. False when the job is gone. Raises OSError."""
        absent.update(NO_PRESSURE)
        for controller in tuple(self._meters):
            self._read_meter(controller, values, absent)
        if not self.found:
            self.close()
            return False
        absent.update(self._missing)
        self._read_kills(values, absent)
        self._read_pids(values, absent)
        return True

    def _read_meter(self, controller: str, values: Values, absent: Absent) -> None:
        one: CounterSet | None = self._meters[controller]
        for _ in range(TRIES):
            if one is None or one.read(values, absent):
                return
            one.close()
            one = self._open(controller)
        if one is not None:  # found and not read, for the last time of this look: the next one sees what it is
            one.close()
            del self._meters[controller]
            self._missing.update(dict.fromkeys(_fields(controller), "replaced again and again while it was read"))

    def _read_kills(self, values: Values, absent: Absent) -> None:
        if self._kills is None or "memory" not in self._meters:
            return
        try:
            kills = self._kills.read()
        except OSError as error:
            kills = error_name(error)
        if isinstance(kills, str):
            absent["oom_kills"] = kills
        else:
            values["oom_kills"] = kills

    def _read_pids(self, values: Values, absent: Absent) -> None:
        plan = {"cgroup.procs": "processes"} if "threads" in values else PID_LISTS
        try:
            counted = self._count(tuple(plan))
        except OSError as error:
            absent.update(dict.fromkeys(plan.values(), error_name(error)))
            return
        for name, field in plan.items():
            count = counted[name]
            if count is None:
                absent[field] = NOT_UNDERSTOOD
            else:
                values[field] = count

    def _count(self, names: Sequence[str]) -> dict[str, int | None]:
        if self._pids is not None:
            try:
                return self._pids.count(names)
            except OSError as error:
                if error.errno not in GONE_ERRORS:
                    raise
        self._find_pids()
        if self._pids is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._pids.count(names)

    def cpu_usage_us(self) -> int | None:
        """The job's CPU counter alone; None where it cannot be read."""
        one = self._meters.get("cpuacct") or self._open("cpuacct")
        usage = None if one is None else one.read_field("cpu_usage_us")
        if usage is None and one is not None and not one.alive():
            one.close()
            one = self._open("cpuacct")
            usage = None if one is None else one.read_field("cpu_usage_us")
        return usage

    def close(self) -> None:
        """Let all descriptors go."""
        for one in self._meters.values():
            one.close()
        if self._pids is not None:
            self._pids.close()
