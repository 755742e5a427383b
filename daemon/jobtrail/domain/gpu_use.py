"""Which jobs use which GPUs, where that disagrees with what they hold, and how long a held GPU was idle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from jobtrail.domain.gpu_allocation import GpuAllocation
from jobtrail.domain.gpus import GpuReading

JobOf = Callable[[int], str | None]


class Disagreement(StrEnum):
    """How what a job does differs from what it holds."""

    NOT_HELD = "not_held"  # a job's process is on a GPU no job holds
    HELD_BY_ANOTHER = "held_by_another"  # … on a GPU that only other jobs hold


class AttributionMismatch(msgspec.Struct, frozen=True, kw_only=True):
    """A job's process on a GPU the job does not hold. Told only of jobs whose GPUs are all known."""

    kind: Disagreement
    gpu_id: str
    pid: int
    job: str
    holders: tuple[str, ...] = ()


class GpuUse(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds and who uses one GPU. `users` is None where its processes could not be read."""

    gpu_id: str
    holders: tuple[str, ...] = ()
    users: tuple[str, ...] | None = None
    strangers: tuple[int, ...] = ()  # processes of no job: a server of MPS, a person on the node

    @property
    def shared(self) -> bool:
        """Whether several jobs hold or use the GPU: shards, MPS."""
        return len({*self.holders, *(self.users or ())}) > 1

    def without(self, jobs: Collection[str]) -> GpuUse:
        """The same as if these jobs were not there."""
        users = None if self.users is None else tuple(job for job in self.users if job not in jobs)
        holders = tuple(job for job in self.holders if job not in jobs)
        return msgspec.structs.replace(self, holders=holders, users=users)


class JobGpuUse(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs one job holds, each in one of three states. `unresolved` were allocated and are not known."""

    job: str
    active: tuple[str, ...] = ()  # a process of the job is on it
    idle: tuple[str, ...] = ()  # none is
    unknown: tuple[str, ...] = ()
    resting: tuple[str, ...] = ()  # of the active ones: nothing ran on it, utilisation 0
    unresolved: int = 0

    @property
    def allocated(self) -> int:
        """How many GPUs the job holds, known or not."""
        return len(self.active) + len(self.idle) + len(self.unknown) + self.unresolved


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """One look at all GPUs of a node, with the jobs of the same moment."""

    gpus: Mapping[str, GpuUse]
    jobs: Mapping[str, JobGpuUse]
    mismatches: tuple[AttributionMismatch, ...] = ()


def attribute(readings: Sequence[GpuReading], jobs: Mapping[str, GpuAllocation], job_of: JobOf) -> Attribution:
    """What the processes on the GPUs say, beside what the jobs hold. `job_of` gives the job of a pid, None for none.

    Who holds a board holds its instances; the processes of an instance also stand on its board, which is not looked at
    for disagreement then.
    """
    held = {job: frozenset(allocation.gpu_ids) for job, allocation in jobs.items()}
    uses = {reading.gpu.gpu_id: _use(reading, held, job_of) for reading in readings}
    boards = {reading.gpu.parent_gpu_id for reading in readings}
    mismatches = [
        mismatch
        for reading in readings
        if reading.gpu.gpu_id not in boards
        for mismatch in _mismatches(reading, uses[reading.gpu.gpu_id], jobs, job_of)
    ]
    states = {job: _job_use(job, allocation, readings, uses) for job, allocation in jobs.items()}
    return Attribution(gpus=uses, jobs=states, mismatches=tuple(mismatches))


def _use(reading: GpuReading, held: Mapping[str, frozenset[str]], job_of: JobOf) -> GpuUse:
    gpu = reading.gpu
    holders = tuple(job for job, gpus in held.items() if gpu.gpu_id in gpus or gpu.parent_gpu_id in gpus)
    if reading.processes is None:
        return GpuUse(gpu_id=gpu.gpu_id, holders=holders)
    found = {process.pid: job_of(process.pid) for process in reading.processes}
    users = dict.fromkeys(job for job in found.values() if job is not None)
    strangers = tuple(pid for pid, job in found.items() if job is None)
    return GpuUse(gpu_id=gpu.gpu_id, holders=holders, users=tuple(users), strangers=strangers)


def _mismatches(
    reading: GpuReading, use: GpuUse, jobs: Mapping[str, GpuAllocation], job_of: JobOf
) -> Iterable[AttributionMismatch]:
    for process in reading.processes or ():
        job = job_of(process.pid)
        allocation = None if job is None else jobs.get(job)
        if job is None or allocation is None or job in use.holders or not allocation.complete:
            continue
        kind = Disagreement.HELD_BY_ANOTHER if use.holders else Disagreement.NOT_HELD
        yield AttributionMismatch(kind=kind, gpu_id=use.gpu_id, pid=process.pid, job=job, holders=use.holders)


def _job_use(
    job: str, allocation: GpuAllocation, readings: Sequence[GpuReading], uses: Mapping[str, GpuUse]
) -> JobGpuUse:
    states: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for gpu_id in allocation.gpu_ids:
        # Of a partitioned board the instances tell; where there are none to look at, the board itself.
        parts = [reading for reading in readings if reading.gpu.parent_gpu_id == gpu_id]
        parts = parts or [reading for reading in readings if reading.gpu.gpu_id == gpu_id]
        answers = [_active(job, reading, uses[reading.gpu.gpu_id]) for reading in parts]
        states[True if True in answers else None if None in answers or not answers else False].append(gpu_id)
    resting = {reading.gpu.gpu_id for reading in readings if reading.utilization_percent == 0}
    return JobGpuUse(
        job=job,
        active=tuple(states[True]),
        resting=tuple(gpu_id for gpu_id in states[True] if gpu_id in resting),
        idle=tuple(states[False]),
        unknown=tuple(states[None]),
        unresolved=len(allocation.unresolved),
    )


def _active(job: str, reading: GpuReading, use: GpuUse) -> bool | None:
    """Whether the job uses the GPU it holds: by its processes, and by the utilisation where these do not tell."""
    if use.users is not None and job in use.users:
        return True
    if reading.utilization_percent == 0:
        return False
    if use.users is not None and not use.strangers:
        return False
    # Work of a process that is in no job may be the job's own, through a server of MPS.
    if use.users is None and use.holders == (job,) and reading.utilization_percent is not None:
        return True
    return None


class IdleTime(msgspec.Struct, frozen=True, kw_only=True):
    """How long a held GPU was idle within a window. `covered_seconds` is how much of the window was seen at all."""

    idle_seconds: float
    covered_seconds: float
    window_seconds: float

    @property
    def coverage(self) -> float:
        """The part of the window that was seen, 0 to 1."""
        return self.covered_seconds / self.window_seconds


class _Span(msgspec.Struct):
    begin_us: int
    end_us: int
    idle: bool


class _Track(msgspec.Struct):
    spans: deque[_Span]
    last_us: int
    last: bool | None


class IdleTracker:
    """Counts idle time of held GPUs over a sliding window, from looks at them.

    The time between two looks is idle only if both found the GPU idle, and is in use if either found it used. Where
    one of them could not tell, or they are more than `max_gap_seconds` apart, it counts neither way.
    """

    def __init__(self, *, window_seconds: float, max_gap_seconds: float) -> None:
        self._window_us = round(window_seconds * 1_000_000)
        self._max_gap_us = round(max_gap_seconds * 1_000_000)
        self._tracks: dict[tuple[str, str], _Track] = {}

    def observe(self, time_us: int, job: str, gpu_id: str, *, active: bool | None) -> None:
        """One look at a GPU that `job` holds. A look that is not later than the last one is left out."""
        track = self._tracks.get((job, gpu_id))
        if track is None:
            self._tracks[job, gpu_id] = _Track(spans=deque(), last_us=time_us, last=active)
            return
        if time_us <= track.last_us:
            return
        known = active is not None and track.last is not None and time_us - track.last_us <= self._max_gap_us
        if known:
            _extend(track.spans, track.last_us, time_us, idle=not (active or track.last))
        track.last_us, track.last = time_us, active
        while track.spans and track.spans[0].end_us <= time_us - self._window_us:
            track.spans.popleft()

    def observe_all(self, time_us: int, attribution: Attribution) -> None:
        """One look at all GPUs that jobs hold: one on which nothing runs is idle, with a process on it or without.

        Jobs and GPUs that are not held any more are forgotten.
        """
        seen = set()
        for job, use in attribution.jobs.items():
            for active, gpu_ids in ((True, use.active), (False, use.idle), (None, use.unknown)):
                for gpu_id in gpu_ids:
                    seen.add((job, gpu_id))
                    self.observe(time_us, job, gpu_id, active=False if gpu_id in use.resting else active)
        for gone in self._tracks.keys() - seen:
            del self._tracks[gone]

    def idle(self, now_us: int, job: str, gpu_id: str) -> IdleTime | None:
        """Idle time within the window that ends now; None for a GPU no look has said anything of."""
        track = self._tracks.get((job, gpu_id))
        if track is None or not track.spans:
            return None
        begin_us = now_us - self._window_us
        idle_us = covered_us = 0
        for span in track.spans:
            length_us = max(0, min(span.end_us, now_us) - max(span.begin_us, begin_us))
            covered_us += length_us
            idle_us += length_us if span.idle else 0
        return IdleTime(
            idle_seconds=idle_us / 1_000_000,
            covered_seconds=covered_us / 1_000_000,
            window_seconds=self._window_us / 1_000_000,
        )


def _extend(spans: deque[_Span], begin_us: int, end_us: int, *, idle: bool) -> None:
    if spans and spans[-1].end_us == begin_us and spans[-1].idle is idle:
        spans[-1].end_us = end_us
    else:
        spans.append(_Span(begin_us, end_us, idle))
