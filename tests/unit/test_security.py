"""Who was turned away goes on record, and nobody can flood the record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jobtrail.adapters.telemetry.words import SECURITY_WHATS
from jobtrail.core.access import security
from jobtrail.core.access.ports import SecurityEvent
from jobtrail.core.access.security import KEPT, KINDS_A_WINDOW, OTHERS, WHATS, SecurityLog
from jobtrail.core.facts import Fact, SecurityNoticed
from jobtrail.domain.errors import StoreUnavailable
from tests.fakes import FakeClock


class Store:
    """A SecurityStore in memory, away when told to be."""

    def __init__(self) -> None:
        self.events: list[SecurityEvent] = []
        self.away = False
        self.hangs = False
        self.written = asyncio.Event()

    async def record(self, events: Sequence[SecurityEvent]) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise StoreUnavailable("away")
        self.events += events
        self.written.set()


def log(store: Store | None, told: list[Fact] | None = None, clock: FakeClock | None = None) -> SecurityLog:
    return SecurityLog(store, node="n1", clock=clock or FakeClock(), tell=(told if told is not None else []).append)


async def test_the_same_again_is_one_event_that_counts() -> None:
    store, told, clock = Store(), list[Fact](), FakeClock()
    record = log(store, told, clock)
    for _ in range(1000):
        record.notice("wrong_token", "grafana", "10.0.0.9", "x" * 1000)
        clock.advance(0.01)
    await record.flush()
    (event,) = store.events
    assert (event.what, event.who, event.peer, event.times) == ("wrong_token", "grafana", "10.0.0.9", 1000)
    assert (event.reporter, len(event.detail), event.last_us - event.first_us) == ("n1", 300, 9_990_000)
    repeated = [fact.repeated for fact in told if isinstance(fact, SecurityNoticed)]
    assert (repeated.count(False), repeated.count(True)) == (1, 999)
    await record.flush()
    assert len(store.events) == 1


async def test_one_row_says_each_way_in_which_somebody_was_turned_away() -> None:
    """As long as there is room: a node that is refused for two reasons is not told of by the first alone."""
    store = Store()
    record = log(store)
    for detail in ("", "no controller", "of cluster 'other'", "no controller", "x" * 300):
        record.notice("forged_node", "n1", "10.0.0.9", detail)
    await record.flush()
    (event,) = store.events
    assert (event.detail, event.times) == ("no controller; of cluster 'other'", 5)


async def test_a_million_names_are_some_rows_and_one_that_counts_the_rest() -> None:
    store, told = Store(), list[Fact]()
    record = log(store, told)
    for number in range(5000):
        record.notice("wrong_password", f"user{number}", f"10.0.{number % 256}.{number // 256}", "")
    await record.flush()
    assert len(store.events) == KINDS_A_WINDOW + 1
    assert (store.events[-1].who, store.events[-1].peer) == (OTHERS, OTHERS)
    assert sum(event.times for event in store.events) == 5000
    assert sum(not fact.repeated for fact in told if isinstance(fact, SecurityNoticed)) == KINDS_A_WINDOW + 1


async def test_what_the_store_does_not_take_waits_up_to_a_bound() -> None:
    store = Store()
    record = log(store)
    store.away = True
    for number in range(KEPT + 40):
        record.notice("wrong_token", "", f"10.0.0.{number}", "")
        await record.flush()
    assert record.lost == 40
    store.away = False
    await record.flush()
    assert len(store.events) == KEPT
    assert store.events[0].peer == "10.0.0.0"


async def test_without_a_store_the_observer_alone_is_told() -> None:
    told: list[Fact] = []
    record = log(None, told)
    record.notice("tls_refused", "", "10.0.0.9", "")
    await record.flush()
    assert len(told) == 1


async def test_it_writes_down_the_first_at_once_and_the_last_at_the_stop() -> None:
    store, stop = Store(), asyncio.Event()
    record = log(store)
    running = asyncio.create_task(record.run(stop))
    record.notice("wrong_sender", "uid 1000", "this machine", "")
    await asyncio.wait_for(store.written.wait(), 5)
    record.notice("wrong_sender", "uid 1001", "this machine", "")
    stop.set()
    await asyncio.wait_for(running, 5)
    assert [event.who for event in store.events] == ["uid 1000", "uid 1001"]


async def test_a_store_that_hangs_does_not_hold_up_the_stop() -> None:
    store, stop = Store(), asyncio.Event()
    record = log(store)
    store.hangs = True
    stop.set()
    record.notice("wrong_sender", "uid 1000", "this machine", "")
    await asyncio.wait_for(record.run(stop), security.LAST_SECONDS + 5)
    assert store.events == []


def test_figures_and_record_have_the_same_words() -> None:
    assert SECURITY_WHATS == WHATS
