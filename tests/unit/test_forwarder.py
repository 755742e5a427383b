"""Events reach the store in order, however long it takes, and nothing makes the forwarder spin or fall silent."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import pytest

from jobtrail.core.facts import ChainGivenUp, EventsForwarded, ForwardConflict, ForwardFailed, ProjectionRefused
from jobtrail.core.forwarder import (
    BATCH_BYTES,
    BATCH_EVENTS,
    GIVE_UP_TRIES,
    LOOK_SECONDS,
    REFUSAL_SECONDS,
    Forwarder,
)
from jobtrail.core.ports import SpoolStatus, StoreReport
from jobtrail.core.waiting import MOST_ASKED_SECONDS, Backoff
from jobtrail.domain.audit import ChainedEvent, ChainHead
from jobtrail.domain.checkpoints import Anchor, Checkpoint, Sealed
from jobtrail.domain.errors import ChainGap, SpoolBroken, SpoolFull, StoreRefused, StoreUnavailable
from tests.chains import ChainWriter
from tests.fakes import Facts, FakeClock, MemorySink
from tests.unit import moved_time

FIRST_DELAY, MOST_DELAY = 1.0, 8.0


class ChainSpool:
    """The forwarder's side of an EventSpool: a chain of which the oldest rows may have been purged."""

    def __init__(self) -> None:
        self.chain = ChainWriter()
        self.forwarded = 0
        self.purged = 0
        self.refusals: dict[int, str] = {}
        self.asked: list[tuple[int, int]] = []
        self.full = False
        self.given_up: tuple[int, str] | None = None
        self._more = asyncio.Event()

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.chain.started(f"slurm-{len(self.chain.rows) + 1}")
        self._more.set()

    async def read_after(self, seq: int, *, limit: int, max_bytes: int) -> Sequence[ChainedEvent]:
        assert max_bytes == BATCH_BYTES
        self.asked.append((seq, limit))
        return [row for row in self.chain.rows if row.seq > max(seq, self.purged)][:limit]

    async def mark_forwarded(self, seq: int) -> None:
        self.forwarded = seq

    async def record_refusal(self, seq: int, reason: str) -> None:
        self.refusals[seq] = reason

    async def give_up_chain(self, after_seq: int, reason: str) -> NoReturn:
        if self.full:
            raise SpoolFull(0)
        self.given_up = after_seq, reason
        raise SpoolBroken(reason)

    async def wait_beyond(self, seq: int) -> None:
        while self.chain.head.seq <= seq:
            self._more.clear()
            await self._more.wait()

    def status(self) -> SpoolStatus:
        return SpoolStatus(
            chain_id=self.chain.chain_id,
            durability="disk",
            head_seq=self.chain.head.seq,
            forwarded_seq=self.forwarded,
            bytes_used=0,
            bytes_limit=1,
            oldest_unforwarded_us=None,
        )


class Sink(MemorySink):
    """A MemorySink that notes each batch, and answers what a test scripted before it does its work."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Exception | StoreReport] = []
        self.for_ever: Exception | StoreReport | None = None
        self.batches: list[tuple[int, ...]] = []
        self.tries = 0
        self.heads = 0
        self.claimed: ChainHead | None = None

    async def head(self, chain_id: str) -> ChainHead:
        self.heads += 1
        return self.claimed or await super().head(chain_id)

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        assert node == "n1"
        self.tries += 1
        answer = self.script.pop(0) if self.script else self.for_ever
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        report = await super().store(events, node=node, trail_only=trail_only)
        self.batches.append(tuple(row.seq for row in events))
        return report


class Bench:
    """A forwarder between a spool and a store."""

    def __init__(self, events: int = 0) -> None:
        self.clock, self.facts, self.spool, self.sink = FakeClock(), Facts(), ChainSpool(), Sink()
        self.forwarder = Forwarder(
            self.spool,  # type: ignore[arg-type]
            self.sink,
            node="n1",
            clock=self.clock,
            tell=self.facts,
            backoff=Backoff(FIRST_DELAY, MOST_DELAY),
        )
        self.spool.add(events)

    @property
    def stored(self) -> list[ChainedEvent]:
        return self.sink.chains.get(self.spool.chain.chain_id, [])

    @stored.setter
    def stored(self, rows: list[ChainedEvent]) -> None:
        self.sink.chains[self.spool.chain.chain_id] = rows

    @property
    def problems(self) -> list[str]:
        return [fact.reason for fact in self.facts.of(ForwardFailed)]

    def run(self, *scenes: Callable[[], None], seconds: float = 100) -> None:
        """Forward while the scenes happen, some time apart; then stop, at once."""

        async def main() -> None:
            stop = asyncio.Event()
            task = asyncio.create_task(self.forwarder.run(stop))
            for scene in (*scenes, lambda: None):
                await asyncio.sleep(seconds)
                scene()
            await asyncio.sleep(seconds)
            began = self.clock.monotonic()
            stop.set()
            await task
            assert self.clock.monotonic() - began < 0.01, "the stop had to wait"

        moved_time.run(self.clock, main())


def test_events_arrive_in_order_as_they_come() -> None:
    """What was there, what comes while it waits; the spool learns how far the store's copy reaches."""
    bench = Bench(events=3)
    bench.run(bench.spool.add, lambda: bench.spool.add(2), lambda: None)
    assert bench.stored == bench.spool.chain.rows
    assert bench.sink.batches == [(1, 2, 3), (4,), (5, 6)]
    assert (bench.spool.forwarded, bench.spool.status().depth) == (6, 0)
    assert [fact.stored for fact in bench.facts.of(EventsForwarded)] == [3, 1, 2]
    assert bench.problems == []


def test_batches_are_bounded() -> None:
    bench = Bench(events=BATCH_EVENTS + 1)
    bench.run()
    assert [len(batch) for batch in bench.sink.batches] == [BATCH_EVENTS, 1]


def test_what_the_store_already_holds_is_not_sent_again() -> None:
    """After a restart of the daemon, and when its last acknowledgement was lost."""
    bench = Bench(events=3)
    bench.stored = bench.spool.chain.rows[:2]
    bench.run()
    assert bench.sink.batches == [(3,)]
    assert bench.spool.forwarded == 3


def test_a_store_that_is_away_for_long_costs_time_and_nothing_else() -> None:
    """Delays grow to their bound and stay there; the problem is told until it is over."""
    bench = Bench(events=1)
    bench.sink.unavailable = "connection refused"
    seen: list[str | None] = []

    def back() -> None:
        seen.append(bench.forwarder.last_problem)
        bench.sink.unavailable = None

    bench.run(bench.spool.add, back, seconds=3600)
    delays = [fact.retry_in_seconds for fact in bench.facts.of(ForwardFailed)]
    assert delays[0] <= FIRST_DELAY
    assert all(MOST_DELAY / 2 <= delay <= MOST_DELAY for delay in delays[4:])
    assert 7200 / MOST_DELAY <= len(delays) <= 7200 / (MOST_DELAY / 2) + 5
    assert set(bench.problems) == {"connection refused"}
    assert seen == ["connection refused"]
    assert bench.forwarder.last_problem is None
    assert bench.stored == bench.spool.chain.rows


def test_delays_begin_short_again_after_a_success() -> None:
    bench = Bench(events=1)

    def away() -> None:
        bench.sink.unavailable = "away"
        bench.spool.add()

    def back() -> None:
        bench.sink.unavailable = None

    bench.run(away, back, away, back)
    short = [fact.retry_in_seconds for fact in bench.facts.of(ForwardFailed) if fact.retry_in_seconds <= FIRST_DELAY]
    assert len(short) == 2


def test_a_store_restored_from_a_backup_gets_again_what_it_lost() -> None:
    """Its head went back while we ran; we resume there at once and without a problem."""
    bench = Bench(events=5)

    def restore() -> None:
        bench.stored = bench.stored[:2]
        bench.spool.add()

    bench.run(restore)
    assert bench.stored == bench.spool.chain.rows
    assert bench.sink.batches == [(1, 2, 3, 4, 5), (3, 4, 5, 6)]
    assert bench.problems == []
    assert bench.spool.forwarded == 6


def test_a_node_with_nothing_to_say_still_heals_a_restored_store() -> None:
    """No event comes for days; the store's end is asked for now and then, and seldom."""
    bench = Bench(events=5)
    bench.run(lambda: setattr(bench, "stored", bench.stored[:2]), seconds=LOOK_SECONDS * 4)
    assert bench.stored == bench.spool.chain.rows
    assert bench.sink.batches == [(1, 2, 3, 4, 5), (3, 4, 5)]
    assert bench.sink.heads <= 1 + 3 * 4 / 0.75
    assert bench.problems == []


def test_a_store_that_says_when_to_come_back_is_left_alone_until_then() -> None:
    """Not longer than some minutes, whatever it says; and not all nodes at once."""
    bench = Bench(events=1)
    bench.sink.script = [StoreUnavailable("busy", retry_after_seconds=seconds) for seconds in (60.0, 1e9, -5.0)]
    bench.run(seconds=600)
    first, second, third = (fact.retry_in_seconds for fact in bench.facts.of(ForwardFailed))
    assert 60 <= first <= 90
    assert MOST_ASKED_SECONDS <= second <= 1.5 * MOST_ASKED_SECONDS
    assert 0 < third <= MOST_DELAY
    assert bench.stored == bench.spool.chain.rows


def test_a_node_that_is_turned_away_for_want_of_room_need_not_ask_again_where_it_was() -> None:
    """Where thousands come at once, each question that is not asked is room for an event."""
    asked = {}
    for turned_away in (True, False):
        bench = Bench(events=3)
        bench.sink.script = [StoreUnavailable("full", turned_away=turned_away) for _ in range(3)]
        bench.run(seconds=20)
        assert bench.stored == bench.spool.chain.rows
        asked[turned_away] = bench.sink.heads
    assert asked[True] == asked[False] - 3


def test_a_store_whose_head_keeps_changing_is_asked_slowly() -> None:
    """Two replicas behind one address, say: each names another head. We do not spin between them."""
    bench = Bench(events=9)
    bench.sink.script = [ChainGap(2 + number % 2) for number in range(40)]
    bench.run(seconds=600)
    assert bench.sink.tries < 60
    assert bench.problems[0].startswith("the store asks for what follows")
    assert bench.stored == bench.spool.chain.rows


def test_a_store_that_asks_for_what_it_gets_is_asked_slowly() -> None:
    bench = Bench(events=2)
    bench.sink.for_ever = ChainGap(0)
    bench.run(seconds=600)
    assert set(bench.problems) == {"the store asks for what follows 0 and refuses it"}
    assert bench.sink.tries <= 1200 / (MOST_DELAY / 2) + 5


def test_a_store_that_takes_a_batch_and_keeps_its_head_is_asked_slowly() -> None:
    bench = Bench(events=2)
    bench.sink.for_ever = StoreReport(head=ChainHead(0, bytes(32)))
    bench.run(seconds=600)
    assert set(bench.problems) == {"the store took a batch and still ends at sequence 0"}
    assert bench.sink.tries <= 1200 / (MOST_DELAY / 2) + 5
    assert bench.spool.forwarded == 0


def test_a_store_that_claims_more_than_it_was_sent_is_not_believed() -> None:
    """Another program's answer, or another chain's: nothing counts as forwarded for it, and it is asked slowly."""
    bench = Bench(events=2)
    bench.sink.for_ever = StoreReport(head=ChainHead(1_000_000, bytes(32)), stored=2)
    bench.run(seconds=600)
    assert set(bench.problems) == {"the store was sent events up to sequence 2 and claims to end at 1000000"}
    assert bench.sink.tries <= 1200 / (MOST_DELAY / 2) + 5
    assert bench.spool.forwarded == 0
    bench.sink.for_ever = None
    bench.run()
    assert bench.stored == bench.spool.chain.rows


def test_one_event_the_projection_cannot_take_is_kept_in_the_trail_alone() -> None:
    """The batch is taken apart to find it; all others have their effect, and it is on record in both places."""
    bench = Bench(events=5)
    poison = bench.spool.chain.rows[2]
    bench.sink.refuses = {poison.event_id}
    bench.run(lambda: bench.spool.add(3))
    assert bench.stored == bench.spool.chain.rows
    assert bench.sink.batches == [(1,), (2,), (3,), (4,), (5,), (6, 7, 8)]
    assert bench.sink.trail_only == [(bench.spool.chain.chain_id, 3)]
    assert bench.spool.refusals == {3: "the projection refuses an event"}
    assert bench.facts.of(ProjectionRefused) == [ProjectionRefused(seq=3, reason="the projection refuses an event")]
    assert {job for _, job in bench.sink.runs} == {f"slurm-{number}" for number in (1, 2, 4, 5, 6, 7, 8)}
    assert bench.problems == []


def test_an_event_refused_even_for_the_trail_is_never_skipped() -> None:
    """A gap in the chain would look like tampering: we stay there, say so, and go on once the store takes it."""
    bench = Bench(events=2)
    bench.sink.for_ever = StoreRefused("numeric value out of range")
    bench.run(lambda: setattr(bench.sink, "for_ever", None))
    assert set(bench.problems) == {"the store refuses event 1 even for the trail: numeric value out of range"}
    assert bench.stored == bench.spool.chain.rows


def gives_up(bench: Bench) -> tuple[int, str, str]:
    """Run until the chain is given up: after which event, the reason's word, and what was said."""
    with pytest.raises(SpoolBroken):
        bench.run()
    (told,) = bench.facts.of(ChainGivenUp)
    assert bench.spool.given_up is not None
    assert bench.spool.given_up[1] == told.detail
    assert bench.problems == [told.detail] * (GIVE_UP_TRIES - 1)
    return bench.spool.given_up[0], told.reason, told.detail


def test_a_forked_chain_is_given_up_where_it_forks() -> None:
    """The store's rows are not ours: another machine writes under our chain's id, or somebody changed them."""
    bench = Bench(events=6)
    other = ChainWriter(chain_id=bench.spool.chain.chain_id)
    other.rows.extend(bench.spool.chain.rows[:2])
    for number in range(3):
        other.started(f"slurm-{90 + number}")
    bench.stored = list(other.rows)
    bench.spool.forwarded = 1
    after, reason, detail = gives_up(bench)
    assert (after, reason) == (2, "another_row")
    assert detail == "the store holds another event as this chain's number 5"
    assert [fact.seq for fact in bench.facts.of(ForwardConflict)] == [3, 4, 5]
    assert bench.stored == other.rows


def test_a_last_row_that_was_changed_in_the_store_begins_a_new_chain_there() -> None:
    """All was forwarded once; what the store now shows as the chain's end is not what this node sent."""
    bench = Bench(events=3)
    other = ChainWriter(chain_id=bench.spool.chain.chain_id)
    other.rows.extend(bench.spool.chain.rows[:2])
    other.started("slurm-90")
    bench.stored = list(other.rows)
    bench.spool.forwarded = 3
    assert gives_up(bench)[:2] == (2, "another_row")


def test_a_store_that_names_another_end_and_holds_our_rows_loses_none_of_them() -> None:
    """Somebody changed where the store says that the chain ends; every row behind it is ours."""
    bench = Bench(events=3)
    bench.stored = list(bench.spool.chain.rows)
    bench.sink.claimed = ChainHead(3, bytes(range(32)))
    assert gives_up(bench)[:2] == (3, "another_row")
    assert bench.facts.of(ForwardConflict) == []


def test_a_misfit_that_passes_ends_no_chain() -> None:
    """As while a store fails over: a replica that is behind, or ahead, answers once or twice."""
    bench = Bench(events=3)
    rows = list(bench.spool.chain.rows)
    ahead = ChainWriter(chain_id=bench.spool.chain.chain_id)
    ahead.rows.extend(rows)
    ahead.started("slurm-99")
    bench.stored = list(ahead.rows)

    def settled() -> None:
        bench.stored = rows[:2]

    bench.run(settled, seconds=FIRST_DELAY * 1.2)
    assert bench.spool.given_up is None
    assert bench.stored == bench.spool.chain.rows


def test_conflicts_and_refused_projections_in_a_report_are_told() -> None:
    bench = Bench(events=2)
    head = ChainHead(2, bench.spool.chain.rows[-1].row_hash)
    bench.sink.script = [StoreReport(head=head, stored=1, replayed=1, conflicts=(1,), unapplied={2: "no such kind"})]
    bench.run()
    assert bench.facts.of(ForwardConflict) == [ForwardConflict(seq=1)]
    assert bench.facts.of(ProjectionRefused) == [ProjectionRefused(seq=2, reason="no such kind")]


def test_events_that_changed_no_job_are_told_for_an_hour() -> None:
    """Of a node whose cluster a server does not take, nothing else looks wrong: each event arrives."""
    bench = Bench(events=3)
    bench.sink.refuses = {row.event_id for row in bench.spool.chain.rows[:2]}
    seen: list[str | None] = [bench.forwarder.refusal()]
    told = (
        "of this daemon changed no job and stand in the trail alone; of the last one: the projection refuses an event"
    )

    def later() -> None:
        seen.append(bench.forwarder.refusal())
        bench.clock.advance(REFUSAL_SECONDS)
        seen.append(bench.forwarder.refusal())
        bench.spool.add()
        bench.sink.refuses = {bench.spool.chain.rows[-1].event_id}

    bench.run(later)
    assert [*seen, bench.forwarder.refusal()] == [None, f"2 events {told}", None, f"1 event {told}"]


def test_events_purged_before_the_store_was_restored_are_told_as_a_hole() -> None:
    """They are gone from both: the new chain's first row says so, and all that the spool still holds follows it."""
    bench = Bench(events=6)
    bench.spool.purged = 4
    bench.stored = bench.spool.chain.rows[:2]
    after, reason, detail = gives_up(bench)
    assert (after, reason) == (2, "purged")
    assert detail == (
        "the store ends at sequence 2 and this node's oldest event is 5: "
        "the events between were purged before the store was restored"
    )


def test_a_newer_backup_in_time_mends_the_hole() -> None:
    bench = Bench(events=6)
    bench.spool.purged = 4
    bench.stored = bench.spool.chain.rows[:2]

    def better_backup() -> None:
        bench.stored = bench.spool.chain.rows[:4]

    bench.run(better_backup, seconds=FIRST_DELAY * 1.2)
    assert bench.spool.given_up is None
    assert bench.stored == bench.spool.chain.rows


def test_a_spool_that_was_set_back_begins_a_new_chain() -> None:
    """A snapshot of the machine was restored: the store knows events this node has forgotten."""
    bench = Bench(events=5)
    bench.stored = list(bench.spool.chain.rows)
    del bench.spool.chain.rows[3:]
    bench.spool.forwarded = 1
    after, reason, detail = gives_up(bench)
    assert (after, reason) == (3, "set_back")
    assert detail.startswith("the store holds this chain up to sequence 5 and this node's spool ends at 3")
    assert bench.facts.of(ForwardConflict) == []


def test_a_spool_without_room_for_the_end_of_its_chain_is_told() -> None:
    bench = Bench(events=6)
    bench.spool.purged, bench.spool.full = 4, True
    bench.stored = bench.spool.chain.rows[:2]
    bench.run()
    assert bench.problems[-1].endswith("and the spool has no room for the end of the chain")


def test_where_the_fork_is_searched_purged_events_end_the_search() -> None:
    bench = Bench(events=6)
    bench.stored = list(bench.spool.chain.rows)
    del bench.spool.chain.rows[5:]
    bench.spool.purged, bench.spool.forwarded = 4, 1
    assert gives_up(bench)[:2] == (1, "set_back")


def test_a_stop_ends_the_wait_for_events_at_once() -> None:
    """`Bench.run` asserts it; the other tests do so in the waits after a failure."""
    Bench(events=0).run()


def test_a_stop_before_the_start_does_nothing() -> None:
    bench = Bench(events=1)

    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        await bench.forwarder.run(stop)

    moved_time.run(bench.clock, main())
    assert bench.stored == []


async def test_draining_forwards_all_there_is_and_does_not_wait() -> None:
    bench = Bench(events=BATCH_EVENTS + 3)
    bench.sink.refuses = {bench.spool.chain.rows[1].event_id}
    await bench.forwarder.drain()
    assert bench.stored == bench.spool.chain.rows


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ChainGap(7)])
async def test_draining_gives_up_at_the_first_problem(error: Exception) -> None:
    bench = Bench(events=1)
    bench.sink.for_ever = error
    drain: Callable[[], Awaitable[None]] = bench.forwarder.drain
    with pytest.raises(type(error)):
        await drain()
    assert bench.sink.tries == 1


async def test_what_the_store_tells_of_checkpoints_goes_to_the_witness() -> None:
    bench = Bench(events=2)
    told: list[Anchor] = []

    async def witness(anchor: Anchor) -> None:
        told.append(anchor)

    forwarder = Forwarder(
        bench.spool, bench.sink, node="n1", clock=bench.clock, tell=Facts(), backoff=Backoff(), witness=witness
    )
    await forwarder.drain()
    assert told == []  # nothing is sealed yet
    checkpoint = Checkpoint(number=1, previous=bytes(32), root=bytes(32), leaf_count=1, total_rows=2, time_us=1)
    bench.sink.anchor = Anchor(newest=Sealed(checkpoint=checkpoint))
    bench.spool.add()
    await forwarder.drain()
    assert told == [bench.sink.anchor]
