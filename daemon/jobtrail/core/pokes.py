"""Looks that a job's own tasks ask for, at the one moment when the totals are whole and the counters still there.

Any user can ask, so what asking can cost is bounded: for each job, and for all of them together.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from jobtrail.core.ports import Clock, PokeAnswer

ANSWER_SECONDS = 0.5  # a task that ended waits for the answer
SECONDS_PER_LOOK = 0.5
BURST = 4  # a job's last steps and its batch script can end within one moment
MOST_AT_ONCE = 16
SOURCE = "task_epilog"


class Looker(Protocol):
    """Who can look at the jobs of this node (the sampler)."""

    def is_running_for(self, job_id: str, uid: int) -> bool:
        """Whether a job is open on this node and is `uid`'s; root may speak for every one."""
        ...

    async def poked(self, job_id: str, uid: int, *, by: str) -> None:
        """Read a job's counters now."""
        ...


class Pokes:
    """Answers a poke after the look, so that its sender keeps the counters there meanwhile."""

    def __init__(self, looker: Looker, clock: Clock) -> None:
        self._looker = looker
        self._clock = clock
        self._booked_until: dict[str, float] = {}  # job id -> monotonic time until which its looks are used up
        self._looks: set[asyncio.Task[None]] = set()

    async def poke(self, job_id: str, uid: int) -> PokeAnswer:
        """Have a job's counters read, if it is `uid`'s and it is not asked for too often. Takes half a second at most.

        A look that takes longer goes on, because a reading that hangs in the kernel cannot be taken back; until it is
        done it counts among those in progress.
        """
        if not self._looker.is_running_for(job_id, uid):
            return PokeAnswer.NOT_YOURS
        if len(self._looks) >= MOST_AT_ONCE:
            return PokeAnswer.BUSY
        if not self._book(job_id):
            return PokeAnswer.TOO_SOON
        look = asyncio.create_task(self._looker.poked(job_id, uid, by=SOURCE))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        done, _ = await asyncio.wait({look}, timeout=ANSWER_SECONDS)
        if not done:
            return PokeAnswer.BUSY
        look.result()
        return PokeAnswer.LOOKED

    def _book(self, job_id: str) -> bool:
        """Use up one look of a job's share: two a second, and a few more after a while without any."""
        now = self._clock.monotonic()
        self._booked_until = {job: until for job, until in self._booked_until.items() if until > now}
        until = self._booked_until.get(job_id, now) + SECONDS_PER_LOOK
        if until - now > BURST * SECONDS_PER_LOOK:
            return False
        self._booked_until[job_id] = until
        return True
