"""The watch over the nodes: what Slurm said is shown and stored, and is not shown for long once Slurm falls silent."""

import asyncio
from collections.abc import Sequence

from jobtrail.core.facts import ChoreFailed, SlurmAnswered, SlurmAskFailed
from jobtrail.core.runs.board import Board
from jobtrail.core.slurm.nodes import FOLLOWING_SECONDS, STALE_PERIODS, NodeWatcher
from jobtrail.domain.errors import SlurmDenied, SlurmError, SlurmUnavailable, StoreRefused, StoreUnavailable
from jobtrail.domain.slurm import NodeRecord, SlurmAnswer
from tests.fakes import Facts, FakeClock
from tests.unit import moved_time

SECONDS = 60.0
IDLE, DOWN = NodeRecord(name="n1", state="idle", cpus=8), NodeRecord(name="n2", state="down", reason="fan")


class Controller:
    """A SlurmController that knows nodes."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.answer: Sequence[NodeRecord] = [IDLE, DOWN]
        self.problem: SlurmError | None = None
        self.asked: list[float] = []

    async def nodes(self) -> Sequence[NodeRecord]:
        self.asked.append(self._clock.monotonic())
        if self.problem is not None:
            raise self.problem
        return self.answer

    async def current_jobs(self) -> SlurmAnswer:
        raise AssertionError("nobody asks the watcher for jobs")

    async def job(self, number: int) -> SlurmAnswer:
        raise AssertionError(f"nobody asks the watcher for job {number}")


class Store:
    """A NodeStore that notes what it was given."""

    def __init__(self) -> None:
        self.written: list[tuple[str, list[str], int]] = []
        self.problem: StoreUnavailable | StoreRefused | None = None

    async def write_nodes(self, cluster: str, nodes: Sequence[NodeRecord], *, asked_us: int) -> None:
        if self.problem is not None:
            raise self.problem
        self.written.append((cluster, [node.name for node in nodes], asked_us))


class World:
    """A watcher and all it speaks with."""

    def __init__(self) -> None:
        self.clock, self.facts, self.board, self.store = FakeClock(), Facts(), Board(max_jobs=1), Store()
        self.controller = Controller(self.clock)
        self.cluster: str | None = "c1"
        self.watcher = NodeWatcher(
            self.controller,
            self.store,
            board=self.board,
            clock=self.clock,
            tell=self.facts,
            cluster_of=self._cluster_of,
            seconds=SECONDS,
            leads=self._leads,
        )
        self.leading = True
        self.doubt: StoreUnavailable | None = None

    async def _leads(self) -> bool:
        if self.doubt is not None:
            raise self.doubt
        return self.leading

    async def _cluster_of(self) -> str | None:
        return self.cluster

    def turn(self) -> None:
        moved_time.run(self.clock, self.watcher.turn())


def test_what_slurm_says_is_shown_and_stored_under_the_moment_of_asking() -> None:
    world = World()
    asked_us = world.clock.time_us()
    world.turn()
    assert world.board.cluster_nodes == (IDLE, DOWN)
    assert world.store.written == [("c1", ["n1", "n2"], asked_us)]
    assert world.facts == [SlurmAnswered(question="nodes", records=2)]


def test_a_node_that_is_named_twice_is_one() -> None:
    world = World()
    world.controller.answer = [IDLE, DOWN, IDLE]
    world.turn()
    assert world.board.cluster_nodes == (IDLE, DOWN)


def test_nothing_is_stored_under_an_unknown_cluster() -> None:
    world = World()
    world.cluster = None
    world.turn()
    assert world.board.cluster_nodes == (IDLE, DOWN)
    assert world.store.written == []


def test_old_values_go_when_slurm_stays_silent_and_come_back_with_it() -> None:
    world = World()
    world.turn()
    world.controller.problem = SlurmUnavailable("no route")
    shown = []
    for _ in range(STALE_PERIODS):
        world.clock.advance(SECONDS)
        world.turn()
        shown.append(world.board.cluster_nodes)
    assert shown == [(IDLE, DOWN), (IDLE, DOWN), None]
    assert world.facts.of(SlurmAskFailed) == [SlurmAskFailed(question="nodes", reason="no route")] * STALE_PERIODS
    assert len(world.store.written) == 1
    world.controller.problem, world.controller.answer = None, [IDLE]
    world.turn()
    assert world.board.cluster_nodes == (IDLE,)


def test_without_any_answer_yet_nothing_is_shown() -> None:
    world = World()
    world.controller.problem = SlurmDenied("bad token")
    world.turn()
    assert world.board.cluster_nodes is None


def test_a_store_that_is_away_or_refuses_costs_the_rows_alone() -> None:
    world = World()
    world.store.problem = StoreUnavailable("away")
    world.turn()
    world.store.problem = StoreRefused("no such text")
    world.turn()
    assert world.board.cluster_nodes == (IDLE, DOWN)
    assert [fact.reason for fact in world.facts.of(ChoreFailed)] == [
        "the nodes were not stored: away",
        "the nodes were not stored: no such text",
    ]


def test_it_asks_at_its_pace_and_stops_at_once() -> None:
    world = World()

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(world.watcher.run(stop))
        await asyncio.sleep(2.5 * SECONDS)
        stop.set()
        began = world.clock.monotonic()
        await task
        assert world.clock.monotonic() - began < 0.01

    began = world.clock.monotonic()
    moved_time.run(world.clock, main())
    assert [round(asked - began) for asked in world.controller.asked] == [0, 60, 120]


def test_who_does_not_lead_asks_nothing_and_shows_nothing() -> None:
    """What it showed when it led says nothing of now."""
    world = World()
    world.turn()
    world.leading = False
    world.turn()
    assert (world.board.cluster_nodes, len(world.controller.asked), len(world.store.written)) == (None, 1, 1)
    world.leading = True
    world.turn()
    assert (world.board.cluster_nodes, len(world.controller.asked)) == ((IDLE, DOWN), 2)


def test_while_nobody_can_say_who_leads_the_one_that_led_goes_on() -> None:
    """Without the store nobody takes over, and what Slurm says can still be shown; who did not lead stays quiet."""
    leader, follower = World(), World()
    follower.leading = False
    for world in (leader, follower):
        world.turn()
        world.doubt = StoreUnavailable("away")
        world.turn()
        world.turn()
        told = [fact.reason for fact in world.facts.of(ChoreFailed)]
        assert told == ["which daemon is to ask for the nodes is not known: away"]
    assert (leader.board.cluster_nodes, len(leader.controller.asked)) == ((IDLE, DOWN), 3)
    assert (follower.board.cluster_nodes, follower.controller.asked) == (None, [])
    leader.doubt = None
    leader.turn()
    leader.doubt = StoreUnavailable("away again")
    leader.turn()
    assert len(leader.facts.of(ChoreFailed)) == 2


def test_who_does_not_lead_looks_often_whether_it_does_now() -> None:
    world = World()
    world.leading = False

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(world.watcher.run(stop))
        await asyncio.sleep(2.5 * FOLLOWING_SECONDS)
        world.leading = True
        await asyncio.sleep(FOLLOWING_SECONDS)
        stop.set()
        await task

    began = world.clock.monotonic()
    moved_time.run(world.clock, main())
    assert [round(asked - began) for asked in world.controller.asked] == [3 * FOLLOWING_SECONDS]
