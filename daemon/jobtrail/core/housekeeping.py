"""The server role's regular chores: sample partitions, and for /metrics jobs by state and the suspended ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobtrail.core.facts import ChoreFailed, Observer, PartitionsKept
from jobtrail.core.ports import CentralStore, Clock
from jobtrail.core.runs.board import Board
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import StoreUnavailable

PARTITION_SECONDS = 3600.0
COUNT_SECONDS = 15.0
DAYS_AHEAD = 3


class Housekeeper:
    """Does each chore when it is due; a store that is away costs the chore, nothing else."""

    def __init__(
        self,
        store: CentralStore,
        *,
        board: Board,
        clock: Clock,
        tell: Observer,
        retention_days: int,
        pending_jobs: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`pending_jobs`: how many wait in Slurm's queue; they have no run yet, so the store knows of none."""
        self._store = store
        self._board = board
        self._clock = clock
        self._tell = tell
        self._retention_days = retention_days
        self._pending_jobs = pending_jobs
        self._partitions_due = 0.0
        self.last_problem: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Do chores until `stop`."""
        while not stop.is_set():
            try:
                await self._keep_partitions()
                self._board.job_states = await self._count_states()
                suspended = await self._store.suspended_jobs(most=self._board.max_jobs)
                self._board.suspended_jobs = tuple(dict.fromkeys(suspended))
                self.last_problem = None
            except StoreUnavailable as error:
                self.last_problem = str(error)
                self._board.job_states, self._board.suspended_jobs = None, ()
                self._tell(ChoreFailed(reason=str(error)))
            await wait_for_any(stop.wait(), timeout_seconds=COUNT_SECONDS)

    async def _count_states(self) -> dict[str, int]:
        states = dict(await self._store.count_states())
        if (pending := self._pending_jobs()) is not None:
            states["pending"] = pending
        return states

    async def _keep_partitions(self) -> None:
        now = self._clock.monotonic()
        if now < self._partitions_due:
            return
        created, dropped = await self._store.keep_partitions(days_ahead=DAYS_AHEAD, retention_days=self._retention_days)
        self._partitions_due = now + PARTITION_SECONDS
        if created or dropped:
            self._tell(PartitionsKept(created=created, dropped=dropped))
