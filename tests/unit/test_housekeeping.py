"""Chores of the server role: done when due, and a store that is away costs the chore alone."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise

from jobtrail.core.facts import ChoreFailed, PartitionsKept
from jobtrail.core.housekeeping import COUNT_SECONDS, DAYS_AHEAD, PARTITION_SECONDS, Housekeeper
from jobtrail.core.runs.board import Board
from jobtrail.domain.errors import StoreUnavailable
from tests.fakes import Facts, FakeClock
from tests.unit import moved_time


class ScriptedStore:
    """A CentralStore that notes its calls with their time."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.kept: list[tuple[float, int, int]] = []
        self.counted: list[float] = []
        self.partitions = [(3, 0)]
        self.unavailable = False

    async def keep_partitions(self, *, days_ahead: int, retention_days: int) -> tuple[int, int]:
        self._check()
        self.kept.append((self._clock.monotonic(), days_ahead, retention_days))
        return self.partitions.pop(0) if self.partitions else (0, 0)

    async def count_states(self) -> Mapping[str, int]:
        self._check()
        self.counted.append(self._clock.monotonic())
        return {"running": len(self.counted)}

    async def suspended_jobs(self, *, most: int) -> Sequence[tuple[str, str]]:
        self._check()
        return [("lab", "slurm-1"), ("lab", "slurm-1"), ("lab", "slurm-2")][: most + 1]

    def _check(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("away")


def test_chores_are_done_when_due() -> None:
    clock, facts, board = FakeClock(), Facts(), Board(max_jobs=1)
    store = ScriptedStore(clock)
    keeper = Housekeeper(store, board=board, clock=clock, tell=facts, retention_days=7)

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(keeper.run(stop))
        await asyncio.sleep(2 * PARTITION_SECONDS + COUNT_SECONDS)
        stop.set()
        await task

    moved_time.run(clock, main())
    assert [(days, kept) for _, days, kept in store.kept] == [(DAYS_AHEAD, 7)] * 3
    assert all(later - earlier >= PARTITION_SECONDS for (earlier, *_), (later, *_) in pairwise(store.kept))
    assert 2 * PARTITION_SECONDS / COUNT_SECONDS <= len(store.counted) <= 2 * PARTITION_SECONDS / COUNT_SECONDS + 3
    assert board.job_states == {"running": len(store.counted)}
    assert board.suspended_jobs == (("lab", "slurm-1"),), "as many as have series at most, and each once"
    assert facts == [PartitionsKept(created=3, dropped=0)]


def test_a_store_that_is_away_leaves_counts_absent_and_is_asked_again() -> None:
    clock, facts, board = FakeClock(), Facts(), Board(max_jobs=1)
    store = ScriptedStore(clock)
    keeper = Housekeeper(store, board=board, clock=clock, tell=facts, retention_days=7)

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(keeper.run(stop))
        await asyncio.sleep(1)
        store.unavailable = True
        await asyncio.sleep(COUNT_SECONDS)
        seen.append(board.job_states)
        assert board.suspended_jobs == ()
        store.unavailable = False
        await asyncio.sleep(COUNT_SECONDS)
        seen.append(board.job_states)
        began = clock.monotonic()
        stop.set()
        await task
        assert clock.monotonic() - began < 0.01

    seen: list[dict[str, int] | None] = []
    moved_time.run(clock, main())
    assert seen == [None, {"running": 2}]
    assert facts.of(ChoreFailed) == [ChoreFailed(reason="away")]


def test_jobs_that_wait_in_the_queue_are_counted_where_slurm_tells_them() -> None:
    clock, board = FakeClock(), Board(max_jobs=1)
    keeper = Housekeeper(
        ScriptedStore(clock), board=board, clock=clock, tell=Facts(), retention_days=7, pending_jobs=lambda: 12
    )

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(keeper.run(stop))
        await asyncio.sleep(1)
        stop.set()
        await task

    moved_time.run(clock, main())
    assert board.job_states == {"running": 1, "pending": 12}
