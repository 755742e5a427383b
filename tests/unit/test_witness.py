"""A node as a witness of its own chain, and the row that a quiet chain gets."""

import asyncio
import uuid
from collections.abc import Callable

import msgspec
import pytest

from jobtrail.core.facts import EventRejected
from jobtrail.core.ports import Receipt
from jobtrail.core.trail.facts import CheckpointSeen, SealFailed, WitnessMismatch
from jobtrail.core.trail.heartbeat import Heartbeat
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.core.trail.witness import PROBLEMS, Witness
from jobtrail.domain.checkpoints import Anchor, Checkpoint, Inclusion, Leaf, Sealed, merkle_root, path_in, tree
from jobtrail.domain.events import Actor, Event, EventKind, decode
from tests.fake_spool import MemorySpool
from tests.fakes import Facts, FakeClock
from tests.unit import moved_time
from tests.unit.test_sealer import Log

replace = msgspec.structs.replace


class Intake:
    """Straight into the spool."""

    def __init__(self, spool: MemorySpool) -> None:
        self._spool = spool

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        return await self._spool.append(event, digest)


def own_events(spool: MemorySpool, clock: FakeClock) -> OwnEvents:
    """What a daemon of node n1 says of itself."""
    return OwnEvents(Intake(spool), node="n1", cluster="c1", clock=clock, new_event_id=lambda: str(uuid.uuid4()))


class Bench:
    def __init__(self) -> None:
        self.clock, self.facts, self.log = FakeClock(), Facts(), Log()
        self.spool = MemorySpool(clock=self.clock)
        self.witness = self.another()

    def another(self) -> Witness:
        """One that begins now, with what is kept, as after a restart."""
        return Witness(self.spool, own_events(self.spool, self.clock), self.log, tell=self.facts)

    async def add(self, count: int) -> None:
        for _ in range(count):
            event = Event(kind=EventKind.CHAIN_HEARTBEAT, event_id=str(uuid.uuid4()), time_us=self.clock.time_us(),
                          cluster="c1", job_id=None, node="n1", changed_by=Actor.COLLECTOR, source="test")  # fmt: skip
            await self.spool.append(event, b"d")

    def anchor(self, number: int = 1, previous: bytes = bytes(32), seq: int = 2) -> Anchor:
        """A checkpoint that covers the chain up to a row, beside another one."""
        row = self.spool.rows[seq - 1]
        leaves = sorted(
            [Leaf(chain_id=row.chain_id, head_seq=seq, head_hash=row.row_hash),
             Leaf(chain_id=str(uuid.UUID(int=number)), head_seq=1, head_hash=b"o" * 32)],
            key=lambda leaf: uuid.UUID(leaf.chain_id).bytes,
        )  # fmt: skip
        checkpoint = Checkpoint(
            number=number, previous=previous, root=merkle_root(leaves), leaf_count=2, total_rows=9, time_us=number
        )
        index = next(place for place, leaf in enumerate(leaves) if leaf.chain_id == row.chain_id)
        sealed = Sealed(checkpoint=checkpoint)
        own = Inclusion(sealed=sealed, leaf=leaves[index], index=index, path=path_in(tree(leaves), index))
        return Anchor(newest=sealed, own=own)

    def problems(self) -> list[str]:
        return [fact.problem for fact in self.facts.of(WitnessMismatch)]

    def recorded(self) -> list[str | None]:
        events = [decode(row.payload) for row in self.spool.rows]
        return [event.note for event in events if event.kind is EventKind.WITNESS_MISMATCH]


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.add(3)
    return made


async def test_what_agrees_is_kept_and_shown(bench: Bench) -> None:
    first = bench.anchor()
    await bench.witness.take(first)
    await bench.witness.take(first)  # told again with the next batch
    second = bench.anchor(2, first.newest.checkpoint.digest(), seq=4)
    await bench.witness.take(second)
    await bench.witness.take(Anchor(newest=bench.anchor(7).newest))  # of others; what lies between was not told
    assert [one.checkpoint.number for one in bench.log.lines] == [1, 2, 7]
    assert [fact.number for fact in bench.facts.of(CheckpointSeen)] == [1, 2, 7]
    assert (bench.problems(), bench.recorded()) == ([], [])


def other_row(anchor: Anchor, bench: Bench) -> Anchor:
    assert anchor.own is not None
    chain = anchor.own.leaf.chain_id
    leaf = Leaf(chain_id=chain, head_seq=2, head_hash=b"x" * 32)
    checkpoint = replace(anchor.newest.checkpoint, root=merkle_root([leaf]), leaf_count=1)
    sealed = Sealed(checkpoint=checkpoint)
    return Anchor(newest=sealed, own=Inclusion(sealed=sealed, leaf=leaf, index=0, path=()))


def beyond(anchor: Anchor, bench: Bench) -> Anchor:
    assert anchor.own is not None
    leaf = replace(anchor.own.leaf, head_seq=99)
    sealed = Sealed(checkpoint=replace(anchor.newest.checkpoint, root=merkle_root([leaf]), leaf_count=1))
    return Anchor(newest=sealed, own=Inclusion(sealed=sealed, leaf=leaf, index=0, path=()))


def no_proof(anchor: Anchor, bench: Bench) -> Anchor:
    assert anchor.own is not None
    return Anchor(newest=anchor.newest, own=replace(anchor.own, path=()))


def other_chain(anchor: Anchor, bench: Bench) -> Anchor:
    assert anchor.own is not None
    return Anchor(newest=anchor.newest, own=replace(anchor.own, leaf=replace(anchor.own.leaf, chain_id="c")))


@pytest.mark.parametrize("change", [other_row, beyond, no_proof, other_chain], ids=lambda one: one.__name__)
async def test_what_contradicts_the_own_chain_is_told_and_recorded(
    bench: Bench, change: Callable[[Anchor, Bench], Anchor]
) -> None:
    problem = "row_differs" if change is other_row else change.__name__
    await bench.witness.take(change(bench.anchor(), bench))
    assert bench.problems() == [problem]
    (note,) = bench.recorded()
    assert note is not None
    assert note.startswith(f"{problem}: checkpoint 1: ")
    assert problem in PROBLEMS


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("problem", ["set_back", "replaced", "unlinked"])
async def test_checkpoints_that_contradict_those_before_are_told(bench: Bench, problem: str, restarted: bool) -> None:
    await bench.witness.take(bench.anchor(5))
    witness = bench.another() if restarted else bench.witness
    number, previous = {"set_back": (3, bytes(32)), "replaced": (5, b"x" * 32), "unlinked": (6, b"x" * 32)}[problem]
    for _ in range(2):  # the store goes back and forth, as two that answer in turn
        await witness.take(Anchor(newest=bench.anchor(number, previous).newest))
    assert bench.problems() == [problem]
    assert len(bench.recorded()) == 1


async def test_the_same_contradiction_is_told_once(bench: Bench) -> None:
    five, three = bench.anchor(5), bench.anchor(3)
    for anchor in (five, three, five, three):
        await bench.witness.take(Anchor(newest=anchor.newest))
    assert bench.problems() == ["set_back"]


async def test_a_row_that_is_purged_cannot_be_compared(bench: Bench) -> None:
    anchor = other_row(bench.anchor(), bench)
    del bench.spool.rows[:2]
    await bench.witness.take(anchor)
    assert bench.problems() == []


async def test_a_full_disk_and_a_full_spool_stop_nothing(bench: Bench) -> None:
    bench.log.broken = True
    await bench.witness.take(bench.anchor())
    assert [fact.reason for fact in bench.facts.of(SealFailed)] == ["a checkpoint is not kept: no room"]
    bench.log.broken, bench.spool.full = False, True
    await bench.witness.take(no_proof(bench.anchor(), bench))
    assert bench.problems() == ["no_proof"]
    assert [fact.reason for fact in bench.facts.of(EventRejected)] == ["spool_full"]


def test_a_chain_gets_a_row_when_it_was_quiet_for_long() -> None:
    clock, facts = FakeClock(), Facts()

    async def main() -> list[EventKind]:
        spool = MemorySpool(clock=clock)
        beats = Heartbeat(spool, own_events(spool, clock), tell=facts, every_seconds=3600.0)
        stop = asyncio.Event()
        task = asyncio.create_task(beats.run(stop))
        await asyncio.sleep(3000)
        event = Event(kind=EventKind.CHECKPOINT, event_id=str(uuid.uuid4()), time_us=clock.time_us(), cluster="c1",
                      job_id=None, node="n1", changed_by=Actor.COLLECTOR, source="test")  # fmt: skip
        await spool.append(event, b"d")  # not quiet
        await asyncio.sleep(2000)
        assert len(spool.rows) == 2
        await asyncio.sleep(6000)
        spool.full = True
        await asyncio.sleep(3600)
        stop.set()
        await task
        return [decode(row.payload).kind for row in spool.rows]

    kinds = moved_time.run(clock, main())
    assert kinds[2:] == [EventKind.CHAIN_HEARTBEAT] * 2
    assert [fact.reason for fact in facts.of(EventRejected)] == ["spool_full"]
