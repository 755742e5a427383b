"""When a run's summary is written into Slurm's accounting, and when it is not."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from jobtrail.core.facts import AdminCommentDone, AdminCommentsRefused
from jobtrail.core.ports import Receipt
from jobtrail.core.slurm.admin_comments import FULL_LOOK_SECONDS, MOST_A_TURN, MOST_TRIES, Commenter
from jobtrail.core.slurm.comment_ports import HeldComment
from jobtrail.domain.errors import SlurmDenied, SlurmUnavailable, SpoolFull, StoreUnavailable
from jobtrail.domain.events import Actor, Event, EventKind
from tests.fake_comments import MemoryComments, MemorySettledRuns
from tests.fakes import Facts, FakeClock
from tests.job_rows import job_row

T = 1_760_000_000
LINE = "jobtrail: completed, CPU not known, memory not known"


class World:
    """A commenter with everything around it."""

    def __init__(self, *, replace: bool = False) -> None:
        self.clock, self.facts = FakeClock(), Facts()
        self.comments, self.runs = MemoryComments(), MemorySettledRuns()
        self.events: list[Event] = []
        self.leads, self.cluster, self.full = True, "c1", False
        ids = itertools.count(1)
        self.commenter = Commenter(
            self.comments,
            self.runs,
            intake=self,
            clock=self.clock,
            tell=self.facts,
            cluster_of=self._cluster,
            leads=self._leads,
            new_event_id=lambda: f"00000000-0000-4000-8000-{next(ids):012}",
            node="server",
            seconds=30.0,
            replace=replace,
        )

    async def _leads(self) -> bool:
        return self.leads

    async def _cluster(self) -> str | None:
        return self.cluster or None

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        if self.full:
            raise SpoolFull("no room")
        self.events.append(event)
        return Receipt(event_id=event.event_id, seq=len(self.events), durability="disk", duplicate=False)

    def ended(self, number: int = 7, *, submitted: int = T, run: int = 1, **row: Any) -> None:
        """The store has a settled run."""
        at = datetime.fromtimestamp(submitted, tz=UTC)
        self.runs.rows.append(job_row(job_id=f"slurm-{number}", run=run, submit_time=at, **row))

    def holds(self, number: int = 7, *, name: str = "", submitted: int = T, over: bool = True, text: str = "") -> None:
        """Accounting has one more run."""
        held = HeldComment(
            job_id=f"slurm-{number}", name=name or str(number), submit_time=submitted, is_over=over, comment=text
        )
        self.comments.runs.append(held)

    async def turn(self, seconds: float = 30.0) -> None:
        self.clock.advance(seconds)
        await self.commenter.turn()

    @property
    def results(self) -> list[str]:
        return [fact.result for fact in self.facts.of(AdminCommentDone)]


async def test_a_settled_run_is_written_once_and_put_on_record() -> None:
    world = World()
    world.ended()
    world.holds(name="5_7")
    await world.turn()
    await world.turn()
    assert world.comments.written == [("5_7", LINE)]
    assert world.results == ["written"]
    (event,) = world.events
    assert (event.kind, event.job_id, event.run, event.note) == (EventKind.COMMENT_WRITTEN, "slurm-7", 1, LINE)
    assert (event.changed_by, event.cluster, event.node) == (Actor.RECONCILER, "c1", "server")


@pytest.mark.parametrize("text", ["see ticket 12", "JS1:H4sIAAAA", " "])
async def test_what_somebody_else_wrote_is_left(text: str) -> None:
    world = World()
    world.ended()
    world.holds(text=text)
    await world.turn()
    await world.turn()
    assert (world.comments.written, world.events, world.results) == ([], [], ["left"])


async def test_what_somebody_else_wrote_is_overwritten_where_that_is_wished() -> None:
    world = World(replace=True)
    world.ended()
    world.holds(text="see ticket 12")
    await world.turn()
    assert world.comments.written == [("7", LINE)]


@pytest.mark.parametrize("replace", [False, True])
async def test_ours_of_before_is_recorded_and_not_written_again(*, replace: bool) -> None:
    """The daemon died between writing and recording; Slurm 22.05 has made small letters of it."""
    world = World(replace=replace)
    world.ended()
    world.holds(text="jobtrail: completed, cpu 4%")
    await world.turn()
    assert (world.comments.written, world.results) == ([], ["found"])
    assert [event.note for event in world.events] == ["jobtrail: completed, cpu 4%"]


async def test_only_the_run_that_is_the_jobs_last_is_written() -> None:
    """sacctmgr reaches no other; the second run's comment is not the first one's."""
    world = World()
    world.ended(run=1)
    world.ended(run=2, submitted=T + 60)
    world.holds()
    world.holds(submitted=T + 60)
    await world.turn()
    assert sorted(world.results) == ["superseded", "written"]
    assert [event.run for event in world.events] == [2]
    assert [run.comment for run in world.comments.runs] == ["", LINE]


async def test_a_run_that_was_requeued_meanwhile_is_not_written_to_its_successor() -> None:
    world = World()
    world.ended()
    world.holds(submitted=T + 60, over=False)
    await world.turn()
    assert (world.comments.written, world.results) == ([], ["superseded"])


async def test_while_accounting_has_not_heard_of_the_end_it_waits_ever_longer_and_then_gives_up() -> None:
    world = World()
    world.ended()
    world.holds(over=False)
    world.ended(8)  # of which accounting knows nothing at all
    for _ in range(200):
        await world.turn()
    assert world.results == ["failed", "failed"]
    assert world.comments.written == []


async def test_what_accounting_hears_of_later_is_written_then() -> None:
    world = World()
    world.ended()
    await world.turn()
    await world.turn(1)
    world.holds()
    await world.turn(1)
    assert world.results == []
    await world.turn()
    assert world.results == ["written"]


async def test_a_refusal_is_told_once_waited_out_and_costs_nobody_else_anything() -> None:
    world = World()
    world.ended()
    world.holds()
    world.comments.failure = SlurmDenied("not you")
    for _ in range(10):
        await world.turn(15)
    told = world.facts.of(AdminCommentsRefused)
    assert [fact.repeated for fact in told] == [False, *[True] * (len(told) - 1)]
    assert 2 <= len(told) < 6
    assert world.commenter.last_problem == "not you"
    world.comments.failure = None
    await world.turn(600)
    assert (world.results, world.commenter.last_problem) == (["written"], None)


async def test_a_run_that_cannot_be_written_is_given_up_and_the_others_are_not() -> None:
    world = World()
    world.ended(7)
    world.ended(8)
    world.holds(7)
    world.holds(8)
    write = world.comments.write

    async def refuses_7(held: HeldComment, text: str) -> None:
        if held.name == "7":
            raise SlurmUnavailable("nothing modified")
        await write(held, text)

    world.comments.write = refuses_7  # type: ignore[method-assign]
    for _ in range(4 * MOST_TRIES):
        await world.turn(700)
    assert sorted(world.results) == ["failed", "written"]
    assert [name for name, _ in world.comments.written] == ["8"]


async def test_only_the_leader_of_a_known_cluster_writes() -> None:
    world = World()
    world.ended()
    world.holds()
    world.leads = False
    await world.turn()
    world.leads, world.cluster = True, ""
    await world.turn()
    assert (world.runs.asked, world.comments.written) == ([], [])


async def test_most_turns_look_back_a_short_while_only() -> None:
    world = World()
    for number in range(1, MOST_A_TURN + 2):
        world.ended(number)
        world.holds(number)
    for _ in range(4):
        await world.turn()
    await world.turn(FULL_LOOK_SECONDS)
    assert world.runs.asked == [86_400.0, 86_400.0, 7_200.0, 7_200.0, 86_400.0]
    assert len(world.comments.written) == MOST_A_TURN + 1


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was forgotten is looked at again, and found to be written."""
    monkeypatch.setattr("jobtrail.core.slurm.admin_comments.MOST_REMEMBERED", 1)
    world = World()
    for number in (7, 8):
        world.ended(number)
        world.holds(number)
    await world.turn()
    await world.turn()
    assert world.results == ["written", "written", "found"]
    assert [name for name, _ in world.comments.written] == ["7", "8"]


@pytest.mark.parametrize("away", ["store", "spool"])
async def test_a_store_or_a_spool_that_is_away_ends_the_turn_alone(away: str) -> None:
    world, stop = World(), asyncio.Event()
    world.ended()
    world.holds()
    world.full = away == "spool"
    world.runs.failure = StoreUnavailable("down") if away == "store" else None
    task = asyncio.create_task(world.commenter.run(stop))
    while not (world.comments.written if away == "spool" else world.clock.monotonic() and world.runs.failure):
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    stop.set()
    await asyncio.wait_for(task, 5)
    world.full, world.runs.failure = False, None
    await world.turn()
    assert world.results == ["found" if away == "spool" else "written"]
