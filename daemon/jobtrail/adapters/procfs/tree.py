"""Resource counters of a process tree from /proc, for jobs that have no cgroup of their own.

A process tree tells less than a cgroup, and says so:
- CPU time is utime + stime of the living processes (fields 14, 15 of /proc/PID/stat, proc_pid_stat(5)) and cutime +
  cstime (16, 17) of the children they waited for. What a process used that nobody in the tree waited for is kept from
  its last look; the time between that look and its end is lost.
- A process belongs to the tree once it was seen as a descendant, also after its parent died and it went to init or
  a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER). One that escapes between two looks is missed with its descendants.
- Memory is the sum of VmRSS (current) and of RssAnon (rss) of /proc/PID/status: pages that processes share count
  once for each, so both are upper bounds. The peak is the largest of that sum at any look and of any VmHWM.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from jobtrail.adapters.procfs.fields import NOT_UNDERSTOOD, US_PER_TICK, kib, line, number, reason_of, wall_clock_us
from jobtrail.domain.samples import CpuTotals, FoundJob, Miss, Missed, Reading, Target

SOURCE = "procfs"
_NOT_FOR_A_TREE = "not counted for a process tree"
_NEVER = dict.fromkeys(
    (
        "cpu_throttled_periods",
        "cpu_throttled_us",
        "memory_limit_bytes",
        "memory_cache_bytes",
        "memory_shmem_bytes",
        "oom_kills",
        *(f"pressure_{what}_{kind}_us" for what in ("cpu", "memory", "io") for kind in ("some", "full")),
    ),
    _NOT_FOR_A_TREE,
)
_Identity = tuple[int, int]  # pid and start time in ticks since boot, which a reused pid does not share


class _Process(msgspec.Struct, frozen=True):
    """A line of /proc/PID/stat. Times in ticks; `waited` are those of children it waited for."""

    pid: int
    start: int
    parent: int
    state: bytes
    user: int
    system: int
    waited_user: int
    waited_system: int
    threads: int

    @property
    def running(self) -> bool:
        return self.state not in {b"Z", b"X", b"x"}


def _parse_stat(pid: int, data: bytes) -> _Process | None:
    """None where the line is not understood. The command, in brackets, may hold anything, brackets included."""
    words = data[data.rfind(b")") + 1 :].split()
    if len(words) < 20:
        return None
    numbers = [number(words[at]) for at in (19, 1, 11, 12, 13, 14, 17)]
    start, parent, user, system, waited_user, waited_system, threads = numbers
    if start is None or parent is None or user is None or system is None:
        return None
    if waited_user is None or waited_system is None or threads is None:
        return None
    return _Process(pid, start, parent, words[0], user, system, waited_user, waited_system, threads)


class _Tree:
    """The processes of one job, and what those that ended have used."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.root: _Identity | None = None
        self.living: dict[_Identity, _Process] = {}
        self.lost_user = 0
        self.lost_system = 0
        self.peak_bytes = 0
        self.io: dict[_Identity, tuple[int, int]] = {}
        self.lost_io = (0, 0)
        self.io_total = (0, 0)

    def update(self, table: dict[int, _Process]) -> None:
        """Follow the tree from the last look to this one."""
        before = self.living
        members = {process.pid for key, process in before.items() if _same(table.get(process.pid), key)}
        if self.root is not None and _same(table.get(self.root[0]), self.root):
            members.add(self.root[0])
        children: dict[int, list[int]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process.pid)
        queue = list(members)
        while queue:
            parent = queue.pop()
            for child in children.get(parent, ()):
                if child not in members and table[child].start >= table[parent].start:
                    members.add(child)
                    queue.append(child)
        self.living = {(pid, table[pid].start): table[pid] for pid in members}
        self._settle(before)

    def _settle(self, before: dict[_Identity, _Process]) -> None:
        """Keep what processes used that ended since the last look and that no parent in the tree waited for.

        A process whose parent lay outside the tree is lost for certain. Of the others, as much counts as lost as the
        living processes' waited-for time did not grow by; that may be too little, but never charges time twice.
        """
        pids = {process.pid for process in before.values()}
        ended = [process for key, process in before.items() if key not in self.living]
        inside = [process for process in ended if process.parent in pids]
        outside = [process for process in ended if process.parent not in pids]
        grown_user = grown_system = 0
        for key, process in self.living.items():
            was = before.get(key)
            grown_user += process.waited_user - (was.waited_user if was else 0)
            grown_system += process.waited_system - (was.waited_system if was else 0)
        self.lost_user += sum(process.user + process.waited_user for process in outside)
        self.lost_user += max(0, sum(process.user + process.waited_user for process in inside) - grown_user)
        self.lost_system += sum(process.system + process.waited_system for process in outside)
        self.lost_system += max(0, sum(process.system + process.waited_system for process in inside) - grown_system)
        for process in outside:
            read, written = self.io.get((process.pid, process.start), (0, 0))
            self.lost_io = (self.lost_io[0] + read, self.lost_io[1] + written)
        self.io = {key: value for key, value in self.io.items() if key in self.living}

    def cpu_us(self) -> tuple[int, int]:
        """User and system time, µs."""
        user = self.lost_user + sum(process.user + process.waited_user for process in self.living.values())
        system = self.lost_system + sum(process.system + process.waited_system for process in self.living.values())
        return user * US_PER_TICK, system * US_PER_TICK


def _same(process: _Process | None, identity: _Identity) -> bool:
    return process is not None and (process.pid, process.start) == identity


class ProcessTreeReader:
    """UsageSource for jobs whose event named a root process.

    Each `read` lists /proc once for all its jobs: some 10 µs per process of the node. No descriptor stays open.
    """

    def __init__(self, root: Path = Path("/proc"), *, clock_us: Callable[[], int] = wall_clock_us) -> None:
        self._root = str(root)
        self._clock_us = clock_us
        self._trees: dict[str, _Tree] = {}
        self._door = threading.Lock()

    def attach(self, target: Target) -> None:
        """Begin with a run; nothing is read yet."""
        with self._door:
            self._trees[target.ref] = _Tree(target)

    def detach(self, ref: str) -> None:
        """Be done with a run. Unknown refs are ignored."""
        with self._door:
            self._trees.pop(ref, None)

    def read(self, refs: Iterable[str]) -> dict[str, Reading | Missed]:
        """One look at each of `refs`. Whatever /proc holds or lacks, it does not raise."""
        named = self._named(refs)
        try:
            table = self._processes()
        except OSError as error:
            missed = Missed(miss=Miss.UNREADABLE, detail=f"{self._root}: {reason_of(error)}")
            return dict.fromkeys(named, missed)
        return {ref: self._read_one(tree, table) for ref, tree in named.items()}

    def cpu_totals(self, refs: Iterable[str]) -> CpuTotals:
        """CPU time of each tree. No counter holds what all of them used, so there is no parent."""
        usages = {ref: reading.cpu_usage_us for ref, reading in self.read(refs).items() if isinstance(reading, Reading)}
        return CpuTotals(parent_us=None, by_ref={ref: usage for ref, usage in usages.items() if usage is not None})

    def scan(self) -> Sequence[FoundJob]:
        """Nothing in /proc says which processes are a job."""
        return ()

    def _named(self, refs: Iterable[str]) -> dict[str, _Tree | None]:
        with self._door:
            return {ref: self._trees.get(ref) for ref in refs}

    def _processes(self) -> dict[int, _Process]:
        table: dict[int, _Process] = {}
        with os.scandir(self._root) as entries:
            pids = [int(entry.name) for entry in entries if entry.name.isascii() and entry.name.isdecimal()]
        for pid in pids:
            try:
                process = _parse_stat(pid, self._content(pid, "stat"))
            except OSError:
                continue  # ended meanwhile, or hidden from us (hidepid)
            if process is not None:
                table[pid] = process
        return table

    def _content(self, pid: int, name: str) -> bytes:
        return Path(self._root, str(pid), name).read_bytes()

    def _read_one(self, tree: _Tree | None, table: dict[int, _Process]) -> Reading | Missed:
        if tree is None:
            return Missed(miss=Miss.UNREADABLE, detail="nothing is attached under this ref")
        if tree.root is None:
            missed = self._find_root(tree, table)
            if missed is not None:
                return missed
        time_us = self._clock_us()
        tree.update(table)
        if not tree.living:
            return Missed(miss=Miss.GONE, detail="no process of the tree is left")
        user, system = tree.cpu_us()
        running = [process for process in tree.living.values() if process.running]
        values = {
            "cpu_usage_us": user + system,
            "cpu_user_us": user,
            "cpu_system_us": system,
            "processes": len(running),
            "threads": sum(process.threads for process in running),
        }
        absent = dict(_NEVER)
        self._add_memory(tree, running, values, absent)
        self._add_io(tree, values, absent)
        return Reading(time_us=time_us, source=SOURCE, absent=absent, **values)

    def _find_root(self, tree: _Tree, table: dict[int, _Process]) -> Missed | None:
        pid, start = tree.target.whereabouts.root_pid, tree.target.whereabouts.root_pid_start_ticks
        if pid is None or pid <= 1:
            return Missed(miss=Miss.UNREADABLE, detail=f"root_pid is {pid}; it must be a process id above 1")
        process = table.get(pid)
        if process is None:
            return Missed(miss=Miss.NOT_YET, detail=f"there is no process {pid}")
        if start is not None and process.start != start:
            return Missed(miss=Miss.GONE, detail=f"process {pid} has ended and its id is another process's now")
        tree.root = (pid, process.start)
        return None

    def _add_memory(self, tree: _Tree, running: list[_Process], values: dict[str, int], absent: dict[str, str]) -> None:
        resident = anonymous = highest = 0
        reason: str | None = None
        for process in running:
            try:
                status = self._content(process.pid, "status")
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ESRCH}:
                    reason = reason_of(error)
                continue
            if b"\nVmRSS:" not in status:
                continue  # it has ended meanwhile and holds no memory any more
            figures = [kib(status, key) for key in (b"VmRSS", b"RssAnon", b"VmHWM")]
            if None in figures:
                reason = NOT_UNDERSTOOD
                continue
            now, private, peak = (figure or 0 for figure in figures)
            resident, anonymous, highest = resident + now, anonymous + private, max(highest, peak)
        tree.peak_bytes = max(tree.peak_bytes, resident, highest)
        if tree.peak_bytes:
            values["memory_peak_bytes"] = tree.peak_bytes
        elif reason is not None:
            absent["memory_peak_bytes"] = reason
        else:
            absent["memory_peak_bytes"] = "no process had memory at any look"
        if reason is None:
            values["memory_current_bytes"], values["memory_rss_bytes"] = resident, anonymous
        else:
            absent["memory_current_bytes"] = absent["memory_rss_bytes"] = reason

    def _add_io(self, tree: _Tree, values: dict[str, int], absent: dict[str, str]) -> None:
        """read_bytes and write_bytes of /proc/PID/io, which include children waited for (kernel/exit.c)."""
        for key, process in tree.living.items():
            try:
                data = b"\n" + self._content(process.pid, "io")
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ESRCH}:
                    continue  # its last figures stand until the next look
                absent["io_read_bytes"] = absent["io_write_bytes"] = reason_of(error)
                return
            read, written = line(data, b"\nread_bytes: "), line(data, b"\nwrite_bytes: ")
            if read is None or written is None:
                absent["io_read_bytes"] = absent["io_write_bytes"] = NOT_UNDERSTOOD
                return
            tree.io[key] = (read, written)
        read = tree.lost_io[0] + sum(one[0] for one in tree.io.values())
        written = tree.lost_io[1] + sum(one[1] for one in tree.io.values())
        tree.io_total = (max(tree.io_total[0], read), max(tree.io_total[1], written))
        values["io_read_bytes"], values["io_write_bytes"] = tree.io_total
