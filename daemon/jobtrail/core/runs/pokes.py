"""Looks that are asked for by a job's own user: by its last task, at the one moment when the totals are whole and the
counters still there, and by whoever wants to know what a part of the job uses.

Any user can ask, so what asking can cost is bounded: for each job, and for all of them together.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from jobtrail.core.ports import Clock, PokeAnswer

MOST_AT_ONCE = 16
SOURCE = "task_epilog"


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """How often a job may be asked about: `burst` times at once, and once more every `seconds_per_look`."""

    burst: int
    seconds_per_look: float = 0.5
    answer_seconds: float = 0.5  # how long who asks waits at most


# A job's last steps and its batch script can end within one moment; each of their ends waits for the answer.
POKES = Allowance(burst=4)
# Somebody who measures a few short parts of a job asks at the begin and the end of each; GPUs take longer to answer.
LOOKS = Allowance(burst=8, answer_seconds=0.9)


class Looker(Protocol):
    """Who can look at the jobs of this node."""

    def is_running_for(self, job_id: str, uid: int) -> bool:
        """Whether a job is open on this node and is `uid`'s; root may speak for every one."""
        ...

    async def poked(self, job_id: str, uid: int, *, by: str) -> None:
        """Read a job's counters now."""
        ...


class Counters(Protocol):
    """Who reads the counters of jobs (the sampler)."""

    def is_running_for(self, job_id: str, uid: int) -> bool:
        """As Looker."""
        ...

    async def look_now(self, job_id: str, uid: int) -> None:
        """Read a job's counters now, and write them down."""
        ...


class Energies(Protocol):
    """Who reads GPUs and energy (the watch)."""

    async def asked(self, job_id: str, uid: int) -> None:
        """Read them now, and write down what they say of a job."""
        ...


class WholeLook:
    """Looks at all there is to measure of a job. Implements Looker."""

    def __init__(self, counters: Counters, energies: Energies | None) -> None:
        self._counters = counters
        self._energies = energies

    def is_running_for(self, job_id: str, uid: int) -> bool:
        """Whether a job is open on this node and is `uid`'s; root may speak for every one."""
        return self._counters.is_running_for(job_id, uid)

    async def poked(self, job_id: str, uid: int, *, by: str) -> None:  # noqa: ARG002 - such a look is as any other
        """Read and write down what the job uses."""
        if self._energies is None:
            await self._counters.look_now(job_id, uid)
        else:
            await asyncio.gather(self._counters.look_now(job_id, uid), self._energies.asked(job_id, uid))


class Pokes:
    """Answers a poke after the look, so that its sender keeps the counters there meanwhile."""

    def __init__(self, looker: Looker, clock: Clock, allowance: Allowance = POKES) -> None:
        self._looker = looker
        self._clock = clock
        self._allowance = allowance
        self._booked_until: dict[str, float] = {}  # job id -> monotonic time until which its looks are used up
        self._looks: set[asyncio.Task[None]] = set()

    async def poke(self, job_id: str, uid: int) -> PokeAnswer:
        """Have a job's counters read, if it is `uid`'s and not asked for too often. Takes `answer_seconds` at most.

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
        done, _ = await asyncio.wait({look}, timeout=self._allowance.answer_seconds)
        if not done:
            return PokeAnswer.BUSY
        look.result()
        return PokeAnswer.LOOKED

    def _book(self, job_id: str) -> bool:
        """Use up one look of a job's share."""
        seconds, burst = self._allowance.seconds_per_look, self._allowance.burst
        now = self._clock.monotonic()
        self._booked_until = {job: until for job, until in self._booked_until.items() if until > now}
        until = self._booked_until.get(job_id, now) + seconds
        if until - now > burst * seconds:
            return False
        self._booked_until[job_id] = until
        return True
