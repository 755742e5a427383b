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
    """A job's CPU total (µs) and what it rests on.

    `shared_by` 1: the parent's counter, or the job's own after its end; right within 1 % and what the living jobs use
    while the counters are read. More: so many jobs ended at once, and what they share is a larger part of it. 0: only
    what was last read; the job may have used more.
    """

    cpu_usage_us: int
    shared_by: int


class _Tracked(msgspec.Struct):
    cpus: int
    counted: bool  # what its counter shows at the first look is growth of the parent's since the look before
    cpu_usage_us: int = 0  # at the last look
    noted_us: int = 0  # by a reading since
    seen: bool = False
    gone: bool = False  # settled: its counter vanished; it may come back if it was only unreadable

    @property
    def known_us(self) -> int:
        return max(self.cpu_usage_us, self.noted_us)


class ParentLedger:
    """Keeps the books of one parent counter. Each `look` is one back-to-back reading of parent and jobs."""

    def __init__(self) -> None:
        self._parent_us: int | None = None
        self._looked = False
        self._carried_us = 0  # growth of the parent that the last look could not settle; below 0: settled in advance
        self._jobs: dict[str, _Tracked] = {}
        self._credits: dict[str, Credit] = {}

    def track(self, ref: str, cpus: int | None, *, new: bool = True) -> None:
        """Begin with a job. A `new` one has used nothing since the last look; another may have run for long."""
        self._jobs.setdefault(ref, _Tracked(cpus=cpus or 1, counted=new))

    def note(self, ref: str, cpu_usage_us: int) -> None:
        """An ordinary reading of one job: it is known to have used at least this much."""
        job = self._jobs.get(ref)
        if job is not None:
            job.noted_us, job.seen = max(job.noted_us, cpu_usage_us), True

    def forget(self, ref: str) -> Credit | None:
        """Be done with a job; what the books say of its total, None where they do not know."""
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
            if growth is not None and job.counted:
                growth -= max(0, now - job.cpu_usage_us)
            job.cpu_usage_us, job.counted, job.seen, job.gone = now, True, True, False
            self._credits.pop(ref, None)
            if ref in ended:
                self._credits[ref] = Credit(now, 1)
        if growth is not None:
            self._settle(vanished, growth)
        elif totals.parent_us is not None:
            self._settle_by_what_is_known(vanished)

    def restart(self, ended: Collection[str] = ()) -> None:
        """The counters could not be read: count anew from the next look, and credit nobody with what lies before it.

        Of the jobs that `ended` meanwhile only what was last read is known.
        """
        self._looked = False
        self._settle_by_what_is_known({ref: job for ref, job in self._jobs.items() if ref in ended and not job.gone})

    def _growth(self, parent_us: int | None) -> int | None:
        """What the parent grew by and is not settled; None when that cannot be told.

        A parent that was missing at the last look was made since then, so all it holds is growth. One that shows less
        than before has started over.
        """
        looked, self._looked = self._looked, True
        before, self._parent_us = self._parent_us or 0, parent_us
        carried, self._carried_us = self._carried_us, 0
        if not looked or parent_us is None or parent_us < before:
            return None
        return parent_us - before + carried

    def _settle(self, vanished: dict[str, _Tracked], growth: int) -> None:
        """Give the growth that the living did not use to those that vanished.

        The counters are read one after the other. A living job may use time after its parent was read: then too much is
        subtracted now, and the parent shows it at the next look. And the growth of a job that nobody has seen yet, nor
        heard the end of, waits for its end.
        """
        rest = growth - sum(job.known_us - job.cpu_usage_us for job in vanished.values())
        if not vanished:
            waiting = any(not (job.seen or job.gone) for job in self._jobs.values())
            self._carried_us = rest if waiting else min(0, rest)
            return
        self._carried_us, rest = min(0, rest), max(0, rest)
        weight = sum(job.cpus for job in vanished.values())
        for ref, job in vanished.items():
            job.gone = True
            total = job.known_us + rest * job.cpus // weight
            if total or not self._carried_us:
                self._credits[ref] = Credit(total, len(vanished) if 100 * rest > total else 1)

    def _settle_by_what_is_known(self, jobs: dict[str, _Tracked]) -> None:
        for ref, job in jobs.items():
            job.gone = True
            if job.known_us:
                self._credits[ref] = Credit(job.known_us, 0)
