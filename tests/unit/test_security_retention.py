"""Old security events go: by the daemon that leads, some at a time, and a store that is away costs the turn."""

from __future__ import annotations

import asyncio

from jobtrail.core.access import retention as security_retention
from jobtrail.core.access.retention import EVERY_SECONDS, TURNS, SecurityRetention
from jobtrail.core.facts import ChoreFailed, SecurityPruned
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from tests.fakes import Facts, FakeClock
from tests.unit import moved_time


class Archive:
    """A SecurityArchive of so many old events, which gives up ten at a time."""

    def __init__(self, old: int) -> None:
        self.old = old
        self.asked: list[int] = []
        self.fails: Exception | None = None

    async def prune_security(self, *, keep_days: int) -> int:
        if self.fails is not None:
            raise self.fails
        self.asked.append(keep_days)
        removed = min(10, self.old)
        self.old -= removed
        return removed


def retention(archive: Archive, facts: Facts, *, leads: bool = True) -> SecurityRetention:
    async def leading() -> bool:
        return leads

    return SecurityRetention(archive, leads=leading, tell=facts, keep_days=30)


async def test_all_that_is_old_goes_and_is_told_once() -> None:
    archive, facts = Archive(25), Facts()
    part = retention(archive, facts)
    await part.turn(asyncio.Event())
    await part.turn(asyncio.Event())
    assert (archive.old, archive.asked) == (0, [30] * 5)
    assert facts == [SecurityPruned(rows=25)]


async def test_more_than_can_be_removed_in_a_turn_waits_for_the_next() -> None:
    archive, facts = Archive(10 * TURNS + 1), Facts()
    await retention(archive, facts).turn(asyncio.Event())
    assert archive.old == 1


async def test_who_does_not_lead_or_is_to_stop_removes_nothing() -> None:
    archive, facts, stop = Archive(5), Facts(), asyncio.Event()
    await retention(archive, facts, leads=False).turn(stop)
    stop.set()
    await retention(archive, facts).turn(stop)
    assert (archive.old, facts) == (5, [])


def test_it_looks_every_hour_and_a_store_that_is_away_costs_a_turn() -> None:
    archive, facts, clock = Archive(5), Facts(), FakeClock()
    archive.fails = StoreUnavailable("away")

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(retention(archive, facts).run(stop))
        await asyncio.sleep(EVERY_SECONDS - 1)
        archive.fails = StoreRefused("not allowed")
        await asyncio.sleep(EVERY_SECONDS)
        archive.fails = None
        await asyncio.sleep(EVERY_SECONDS)
        stop.set()
        await task

    moved_time.run(clock, main())
    told = [fact.reason for fact in facts.of(ChoreFailed)]
    assert told == [f"old security events are not removed: {why}" for why in ("away", "not allowed")]
    assert facts.of(SecurityPruned) == [SecurityPruned(rows=5)]
    assert security_retention.EVERY_SECONDS >= 600
