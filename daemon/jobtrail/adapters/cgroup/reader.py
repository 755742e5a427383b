"""Reads the resource counters of jobs from cgroup v1 and v2, whichever the node has."""

from __future__ import annotations

import functools
import resource
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from jobtrail.adapters.cgroup import v1, v2
from jobtrail.adapters.cgroup.files import GONE_ERRORS, Absent, OpenFiles, Planned, Values, error_name
from jobtrail.adapters.cgroup.kills import NodeKills
from jobtrail.adapters.cgroup.layout import Layout, RefusedError, detect, exists, slurm_job_number
from jobtrail.adapters.cgroup.parents import Parents
from jobtrail.adapters.cgroup.scan import scan_v1, scan_v2
from jobtrail.adapters.cgroup.v1 import V1Job
from jobtrail.adapters.cgroup.v2 import V2Job
from jobtrail.domain.samples import CpuTotals, FoundJob, Miss, Missed, Reading, Target

DEFAULT_ROOT = Path("/sys/fs/cgroup")
FIRST_SECOND_LOOK_SECONDS = 0.1
LONGEST_UNTIL_SECOND_LOOK_SECONDS = 60.0
MORE_LOOKS = 3


def _wall_clock_us() -> int:
    return time.time_ns() // 1_000


def _half_of_allowed_files() -> int:
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, 16_384)


class _Watched:
    """A target, and where its counters were found."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.v1: V1Job | None = None
        self.v2: V2Job | None = None
        self.seen = False
        self.pause = FIRST_SECOND_LOOK_SECONDS
        self.look_again_at = 0.0

    @property
    def found(self) -> V1Job | V2Job | None:
        """v1 first: on a hybrid node it has the controllers, and the unified hierarchy only a cpu.stat."""
        if self.v1 is not None and self.v1.found:
            return self.v1
        return self.v2 if self.v2 is not None and self.v2.found else None

    def close(self) -> None:
        for one in (self.v1, self.v2):
            if one is not None:
                one.close()


class CgroupReader:
    """UsageSource for Slurm's jobs and for jobs whose event named a cgroup.

    Blocking; `read`, `cpu_totals` and `scan` are for one worker thread at a time, `attach` and `detach` may be called
    from another at any time and never wait for them. Per job, v1 keeps 7 to 9 counter files and a directory per step
    open, v2 11 counter files and two descriptors per directory below the job; in all at most `max_open_files` (default:
    half of RLIMIT_NOFILE's soft limit). Beyond that, files are opened at each read.
    """

    def __init__(
        self,
        root: Path = DEFAULT_ROOT,
        *,
        node: str | None = None,
        clock_us: Callable[[], int] = _wall_clock_us,
        monotonic: Callable[[], float] = time.monotonic,
        max_open_files: int | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        """`node` limits `scan` to the jobs of one slurmd where several share a host; `proc` names jobs by SLUID."""
        self._root = str(root)
        self._node = node
        self._clock_us = clock_us
        self._monotonic = monotonic
        self._proc = proc
        self._budget = OpenFiles(_half_of_allowed_files() if max_open_files is None else max_open_files)
        self._kills = NodeKills(str(proc))
        self._layout: Layout | None = None
        self._watched: dict[str, _Watched] = {}
        self._retired: list[_Watched] = []
        self._parents: dict[str, Parents] = {}
        self._door = threading.Lock()  # held for an instant: who is watched
        self._work = threading.Lock()  # held while files are read

    @property
    def open_files(self) -> int:
        """Descriptors kept open for jobs now."""
        return self._budget.kept

    def attach(self, target: Target) -> None:
        """Begin with a run; nothing is read yet and nothing need exist yet."""
        with self._door:
            before = self._watched.pop(target.ref, None)
            if before is not None:
                self._retired.append(before)
            self._watched[target.ref] = _Watched(target)

    def detach(self, ref: str) -> None:
        """Be done with a run. Its descriptors close now, or after the read that is under way."""
        with self._door:
            watched = self._watched.pop(ref, None)
            if watched is not None:
                self._retired.append(watched)
        if self._work.acquire(blocking=False):
            try:
                self._close_retired()
            finally:
                self._work.release()

    def read(self, refs: Iterable[str]) -> dict[str, Reading | Missed]:
        """One look at each of `refs`. Whatever the files hold or lack, it does not raise."""
        with self._work:
            self._kills.look()
            try:
                return {ref: self._read_one(watched) for ref, watched in self._named(refs)}
            finally:
                self._close_retired()

    def cpu_totals(self, refs: Iterable[str]) -> CpuTotals:
        """CPU counters of `refs` and of their parent, all of one node. The parent is read first.

        v2: where slurmd itself lives in the scope (IgnoreSystemd), its own CPU time counts into the parent's.
        """
        with self._work:
            try:
                named = [watched for _, watched in self._named(refs) if watched is not None]
                for watched in named:
                    self._find_quietly(watched)
                parent_us = self._parent_us(named)
                usages = {watched.target.ref: self._cpu_usage_us(watched) for watched in named}
            finally:
                self._close_retired()
        return CpuTotals(parent_us=parent_us, by_ref={ref: usage for ref, usage in usages.items() if usage is not None})

    def scan(self) -> Sequence[FoundJob]:
        """Slurm's jobs on this node. A node that died leaves directories holding only the extern step's `sleep`."""
        with self._work:
            try:
                layout = self._hierarchies()
            except RefusedError:
                return ()
            return tuple({**scan_v2(layout, self._node, self._proc), **scan_v1(layout, self._node)}.values())

    def close(self) -> None:
        """Let all descriptors go."""
        with self._work:
            with self._door:
                self._retired.extend(self._watched.values())
                self._watched.clear()
            self._close_retired()
            for parents in self._parents.values():
                parents.close()
            self._kills.close()

    def _named(self, refs: Iterable[str]) -> list[tuple[str, _Watched | None]]:
        with self._door:
            return [(ref, self._watched.get(ref)) for ref in refs]

    def _close_retired(self) -> None:
        with self._door:
            retired, self._retired = self._retired, []
        for watched in retired:
            watched.close()

    def _hierarchies(self) -> Layout:
        if self._layout is None:
            self._layout = Layout(detect(self._root), self._monotonic)
        return self._layout

    def _read_one(self, watched: _Watched | None) -> Reading | Missed:
        """A look. What was readable before and is not is looked at again, at once: the kernel takes a cgroup's files
        away before its directory (cgroup_destroy_locked), and in between it looks like one that cannot be read."""
        if watched is None:
            return Missed(miss=Miss.UNREADABLE, detail="nothing is attached under this ref")
        got = self._look(watched)
        for _ in range(MORE_LOOKS):
            if not watched.seen or isinstance(got, Reading) or got.miss is not Miss.UNREADABLE:
                break
            got = self._look(watched)
        return got

    def _look(self, watched: _Watched) -> Reading | Missed:
        values: Values = {}
        absent: Absent = {}
        time_us = self._clock_us()
        try:
            job = self._find(watched)
            there = job is not None and job.read(values, absent)
        except RefusedError as refused:
            return Missed(miss=Miss.UNREADABLE, detail=str(refused))
        except OSError as error:
            if error.errno in GONE_ERRORS:
                return self._not_there(watched)
            return Missed(miss=Miss.UNREADABLE, detail=f"{error.filename or self._root}: {error_name(error)}")
        if job is None or not there:
            return self._not_there(watched)
        watched.seen = True
        if not values:
            return Missed(miss=Miss.UNREADABLE, detail=f"{job.directory}: {', '.join(sorted(set(absent.values())))}")
        for field in values.keys() & absent.keys():
            del absent[field]
        return Reading(time_us=time_us, source=job.source, absent=absent, **values)

    def _not_there(self, watched: _Watched) -> Missed:
        return Missed(miss=Miss.GONE if watched.seen else Miss.NOT_YET)

    def _find(self, watched: _Watched) -> V1Job | V2Job | None:
        """The job's counters. Raises RefusedError, OSError."""
        now = self._monotonic()
        found = watched.found
        if found is not None:
            if now >= watched.look_again_at:
                watched.look_again_at = now + watched.pause
                watched.pause = min(2 * watched.pause, LONGEST_UNTIL_SECOND_LOOK_SECONDS)
                found.look_again()
            return found
        layout, target = self._hierarchies(), watched.target
        watched.pause = FIRST_SECOND_LOOK_SECONDS
        watched.look_again_at = now + watched.pause
        if watched.v1 is not None:
            watched.v1.look_again()
        elif layout.mounts.v1:
            watched.v1 = V1Job(functools.partial(layout.v1_directory, target), self._budget, self._kills)
        if watched.found is None and layout.mounts.unified is not None:
            if watched.v2 is not None:
                watched.v2.look_again()
            else:
                watched.v2 = V2Job(functools.partial(layout.v2_directory, target), self._budget)
        return watched.found

    def _find_quietly(self, watched: _Watched) -> None:
        try:
            self._find(watched)
        except (OSError, RefusedError):
            return  # the next `read` tells why

    def _cpu_usage_us(self, watched: _Watched) -> int | None:
        job = watched.found
        if job is None:
            return None
        try:
            return job.cpu_usage_us()
        except (OSError, RefusedError):
            return None

    def _parent_us(self, named: list[_Watched]) -> int | None:
        if not named or self._layout is None:
            return None
        node = named[0].target.node
        met: dict[str, Sequence[Planned]] = {}
        for watched in named:
            met.update(self._parent_of(self._layout, watched))
        return self._parents.setdefault(node, Parents(self._budget)).total_us(met)

    def _parent_of(self, layout: Layout, watched: _Watched) -> dict[str, Sequence[Planned]]:
        """The directory that counts the CPU time of this job and its like, also when the job itself is not there."""
        job, target = watched.found, watched.target
        directory = None if job is None else job.directory
        plan = v2.PARENT_PLAN if isinstance(job, V2Job) else v1.PARENT_PLAN
        if target.whereabouts.cgroup_path is not None:
            parent = "" if directory is None else directory.rpartition("/")[0]
            tops = {layout.mounts.v1.get("cpuacct"), layout.mounts.unified}
            return {} if not parent or parent in tops else {parent: plan}
        try:
            slurm_job_number(target)
            if directory is not None:
                return {"/".join(directory.split("/")[: -2 if isinstance(job, V1Job) else -1]): plan}
            for parent in layout.v1_parents(target.node, "cpuacct"):
                if exists(parent):
                    return {parent: v1.PARENT_PLAN}
            for scope in layout.scopes(target.node):
                if exists(scope):
                    return {scope: v2.PARENT_PLAN}
        except (OSError, RefusedError):
            return {}
        return {}
