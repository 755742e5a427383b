"""The CPU time of jobs that ended between two looks at their counters.

Slurm removes a job's cgroup before its epilog runs, so the job's own counter is gone by then. CPU counters are
hierarchical, though: the parent of all jobs keeps what its dead children used. What the parent grew by and the living
jobs did not use belongs to the jobs that ended in between: exactly if it was one, divided by their CPUs if several.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from jobtrail.domain.samples import CpuTotals


class Credit(msgspec.Struct, frozen=True):
    """A job's CPU total (µs) by its parent's counter, and how many jobs shared the uncertain part (1: exact)."""

    cpu_usage_us: int
    shared_by: int


class _Tracked(msgspec.Struct):
    cpus: int
    cpu_usage_us: int = 0  # at the last look
    noted_us: int = 0  # by a reading since
    seen: bool = False
    gone: bool = False  # settled: its counter vanished; it may come back if it was only unreadable


class ParentLedger:
    """Keeps the books of one parent counter. Each `look` is one back-to-back reading of parent and jobs."""

    def __init__(self) -> None:
        self._parent_us: int | None = None
        self._looked = False
        self._jobs: dict[str, _Tracked] = {}
        self._credits: dict[str, Credit] = {}

    def track(self, ref: str, cpus: int | None) -> None:
        """Begin with a job that has used nothing since the last look."""
        self._jobs.setdefault(ref, _Tracked(cpus=cpus or 1))

    def note(self, ref: str, cpu_usage_us: int) -> None:
        """An ordinary reading of one job: it is known to have used at least this much."""
        job = self._jobs.get(ref)
        if job is not None:
            job.noted_us, job.seen = max(job.noted_us, cpu_usage_us), True

    def forget(self, ref: str) -> Credit | None:
        """Be done with a job; its credit if its counter vanished and the parent's growth told its total."""
        self._jobs.pop(ref, None)
        return self._credits.pop(ref, None)

    def refs(self) -> tuple[str, ...]:
        """The jobs whose counters the next look should read, until they are forgotten."""
        return tuple(self._jobs)

    def look(self, totals: CpuTotals, ended: Collection[str] = ()) -> None:
        """Settle with a new reading. `ended` are jobs known to be over, whether or not their counter was ever seen."""
        growth = self._growth(totals.parent_us)
        vanished: dict[str, _Tracked] = {}
        for ref, job in self._jobs.items():
            now = totals.by_ref.get(ref)
            if now is None:
                if not job.gone and (job.seen or ref in ended):
                    vanished[ref] = job
                continue
            if growth is not None:
                growth -= max(0, now - job.cpu_usage_us)
            job.cpu_usage_us, job.seen, job.gone = now, True, False
            self._credits.pop(ref, None)
        self._share(vanished, growth)

    def restart(self) -> None:
        """The counters could not be read: count anew from the next look, and credit nobody with what lies before it."""
        self._looked = False

    def _growth(self, parent_us: int | None) -> int | None:
        """What the parent grew by; None when that cannot be told.

        A parent that was missing at the last look was made since then, so all it holds is growth. One that started over
        shows less than before, a negative growth, of which nobody gets anything.
        """
        looked, self._looked = self._looked, True
        before, self._parent_us = self._parent_us, parent_us
        if not looked or parent_us is None:
            return None
        if before is None:
            return parent_us
        return parent_us - before

    def _share(self, jobs: dict[str, _Tracked], growth: int | None) -> None:
        for job in jobs.values():
            job.gone = True
        if growth is None or growth < 0:
            return
        weight = sum(job.cpus for job in jobs.values())
        known = {ref: max(job.cpu_usage_us, job.noted_us) for ref, job in jobs.items()}
        rest = max(0, growth - sum(known[ref] - job.cpu_usage_us for ref, job in jobs.items()))
        for ref, job in jobs.items():
            self._credits[ref] = Credit(known[ref] + rest * job.cpus // weight, len(jobs))
