"""What the looks at a run's counters tell of whether its processes are still there."""

from __future__ import annotations

import msgspec

from jobtrail.core.ports import OpenRun
from jobtrail.domain.samples import Miss, Missed, Reading


class Sight(msgspec.Struct, kw_only=True):
    """Whether one run was there when it was looked at, since this daemon has looked at it.

    With `needs_processes` a run is gone, too, when it had processes and none is left: the cgroup of a local job stays
    when `jobtrail exec`, which would have removed it, was killed, and a process that nobody waits for stays in /proc.
    A job of Slurm is there as long as its cgroup is: slurmd removes that, and an empty one is no proof of its end.
    """

    needs_processes: bool = False
    had_processes: bool = False
    seen_us: int | None = None  # wall time of the last look at which it was there
    gone_us: int | None = None  # wall time of the first look since at which it was not; None while it is there
    gone_seconds: float = 0.0  # between that look and the latest; in between it was never there
    gone_at: float = 0.0  # steady time of that look
    empty: bool = False  # whether its cgroup held no process when it was last there

    @property
    def is_alive(self) -> bool:
        """Whether it was there at the last look, and perhaps with processes."""
        return self.seen_us is not None and self.gone_us is None and not self.empty

    def note(self, reading: Reading | Missed | None, *, now: float, now_us: int) -> None:
        """Take note of a look that gave `reading`; None, or one that could not be done, tells nothing."""
        if reading is None or (isinstance(reading, Missed) and reading.miss is Miss.UNREADABLE):
            return
        if isinstance(reading, Reading) and not self._is_empty(reading):
            self.had_processes = self.had_processes or bool(reading.processes)
            self.seen_us, self.gone_us = reading.time_us, None
            self.empty = reading.processes == 0
            return
        if self.gone_us is None:
            self.gone_us, self.gone_at = now_us, now
        self.gone_seconds = now - self.gone_at

    def _is_empty(self, reading: Reading) -> bool:
        return self.needs_processes and self.had_processes and reading.processes == 0


def first_sight(run: OpenRun) -> Sight:
    """The sight of a run at which this daemon has not looked yet."""
    where = run.target.whereabouts
    known = run.usage is not None and bool(run.usage.processes_peak)
    return Sight(
        needs_processes=where.root_pid is not None or not is_slurms(run),
        had_processes=where.root_pid is not None or known,  # a process is there from its start
    )


def is_slurms(run: OpenRun) -> bool:
    """Whether Slurm started the run, and says when it ends."""
    return run.target.job_id.startswith("slurm-")
