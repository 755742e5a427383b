"""The node's clock against the store's, by the time in the store's answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobtrail.core.clocks.facts import ClockCompared
from jobtrail.core.clocks.store import StoreClock
from jobtrail.core.ports import TRAIL_ONLY, StoreReport
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead
from tests.fakes import Facts, FakeClock


class TimedSink:
    """A store that answers after `took` seconds, and looks at its clock halfway."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.ahead = 0.0
        self.took = 0.2
        self.tells = True
        self.node_set_by = 0.0
        self.asked: list[tuple[str, str | None]] = []

    async def head(self, chain_id: str) -> ChainHead:
        return ChainHead(7, chain_id.encode())

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        self.asked.append((node, trail_only))
        self.clock.advance(self.took / 2)
        now = self.clock.time_us() + round(self.ahead * 1e6)
        self.clock.advance(self.took / 2)
        self.clock.set_wall_by(self.node_set_by)
        return StoreReport(head=EMPTY_CHAIN, stored=len(events), store_time_us=now if self.tells else None)


class Bench:
    def __init__(self) -> None:
        self.clock, self.facts = FakeClock(), Facts()
        self.sink = TimedSink(self.clock)
        self.compared = StoreClock(self.sink, clock=self.clock, tell=self.facts)

    async def ask(self) -> None:
        assert (await self.compared.store([], node="n1", trail_only=TRAIL_ONLY)).stored == 0


async def test_the_sink_is_asked_as_before() -> None:
    bench = Bench()
    await bench.ask()
    assert bench.sink.asked == [("n1", TRAIL_ONLY)]
    assert await bench.compared.head("c") == ChainHead(7, b"c")


@pytest.mark.parametrize("ahead", [0.0, 3.0, -420.0])
async def test_the_difference_is_told_and_kept(ahead: float) -> None:
    """However long the answer took, half of that is the doubt."""
    bench = Bench()
    assert bench.compared.ahead_seconds is None
    bench.sink.ahead, bench.sink.took = ahead, 2.0
    await bench.ask()
    (told,) = bench.facts.of(ClockCompared)
    assert told.ahead_seconds == bench.compared.ahead_seconds == pytest.approx(-ahead, abs=1e-5)
    assert told.within_seconds == pytest.approx(1.0)


async def test_nothing_is_said_where_nothing_can_be() -> None:
    """Of a store that does not tell its time, and when the node's clock was set while the store answered."""
    bench = Bench()
    bench.sink.tells = False
    await bench.ask()
    bench.sink.tells, bench.sink.node_set_by = True, 60.0
    await bench.ask()
    assert bench.compared.ahead_seconds is None
    assert bench.compared.problem() is None
    assert bench.facts == []


@pytest.mark.parametrize(
    ("ahead", "took", "told"),
    [(5.5, 0.2, "behind"), (-5.5, 0.2, "ahead of"), (4.9, 0.2, None), (-4.9, 0.2, None), (5.5, 2.0, None)],
)
async def test_what_is_certainly_off_is_a_problem(ahead: float, took: float, told: str | None) -> None:
    bench = Bench()
    bench.sink.ahead, bench.sink.took = ahead, took
    await bench.ask()
    said = bench.compared.problem()
    assert said == (None if told is None else f"this node's clock is 5.5 s {told} the store's: synchronise both")
