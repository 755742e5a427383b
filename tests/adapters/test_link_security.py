"""Who was turned away on a node without a database is on record at the servers, in its name and within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters.http import link_security
from jobtrail.adapters.http.link_security import MOST_NODES, ROWS_A_MINUTE, Allowance
from jobtrail.adapters.http.refusals import Refused
from jobtrail.adapters.postgres import PostgresSecurity, close_pool, open_pool
from jobtrail.adapters.server_link import LinkSecurityEvents
from jobtrail.core.access.security import KEPT, KINDS_A_WINDOW, SecurityLog
from jobtrail.core.facts import Fact, NodeContradicted, NodeServed
from jobtrail.core.link.protocol import MAX_SECURITY_EVENTS
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from tests.adapters.test_postgres_security import BASE_US, event
from tests.fakes import FakeClock
from tests.served_link import Site, in_postgres, site


@pytest.fixture
async def stored(tmp_path: Path, pool: Any) -> AsyncIterator[Site]:
    async with site(tmp_path, in_postgres(pool)) as one:
        yield one


async def on_record(pool: Any) -> list[Any]:
    return list(await PostgresSecurity(pool, timeout_seconds=10.0).security_events(since=None, limit=5000))


async def test_what_a_node_noticed_is_on_record_in_its_name(stored: Site, pool: Any) -> None:
    """A node that any daemon is, with the link in the place of a database."""
    told: list[Fact] = []
    log = SecurityLog(LinkSecurityEvents(stored.link()), node="n1", clock=FakeClock(), tell=told.append)
    for _ in range(3):
        log.notice("wrong_sender", "uid 1000", "this machine", "uid 1000 may not post")
    log.notice("tls_refused", "", "10.0.0.9", "")
    await log.flush()
    rows = {(row["what"], row["who"], row["times"], row["reporter"]) for row in await on_record(pool)}
    assert rows == {("wrong_sender", "uid 1000", 3, "n1"), ("tls_refused", None, 1, "n1")}
    await log.flush()
    assert len(await on_record(pool)) == 2
    (served,) = [fact for fact in stored.server.facts if isinstance(fact, NodeServed)]
    assert (served.node, served.what, served.status, served.rows) == ("n1", "security_events", 200, 2)


async def test_a_node_speaks_for_itself_alone(stored: Site, pool: Any) -> None:
    with pytest.raises(StoreRefused, match="is of node 'n2'"):
        await LinkSecurityEvents(stored.link()).record([event(), event(reporter="n2")])
    assert await on_record(pool) == []
    (fact,) = [fact for fact in stored.server.facts if isinstance(fact, NodeContradicted)]
    assert (fact.node, fact.claimed, fact.what) == ("n1", "n2", "security_events")


async def test_who_is_not_known_as_a_node_puts_nothing_on_record(stored: Site, pool: Any) -> None:
    with pytest.raises(StoreUnavailable, match="does not let this node in"):
        await LinkSecurityEvents(stored.link(token_file="")).record([event()])
    assert await on_record(pool) == []


async def test_what_does_not_fit_is_made_to_fit(stored: Site, pool: Any) -> None:
    odd = [
        event(who="w" * 1000, peer="p" * 1000, detail="d" * 1000, first_us=-5, last_us=-9, times=0),
        event(what="a_word_of_a_later_version", first_us=2**62, last_us=BASE_US, times=2**62),
    ]
    await LinkSecurityEvents(stored.link()).record(odd)
    late, early = await on_record(pool)
    assert (len(early["who"]), len(early["peer"]), len(early["detail"]), early["times"]) == (256, 256, 300, 1)
    assert (early["first_at"].year, early["last_at"].year) == (1970, 1970)
    assert (late["first_at"].year, late["last_at"].year, late["times"]) == (2099, 2099, 2**53 - 1)


@pytest.mark.parametrize("what", ["", "Wrong", "a b", "x" * 41, "wrong_token\n"])
async def test_what_happened_is_a_word(stored: Site, pool: Any, what: str) -> None:
    with pytest.raises(StoreRefused, match="is a word"):
        await LinkSecurityEvents(stored.link()).record([event(what=what)])
    assert await on_record(pool) == []


async def test_a_node_that_floods_the_record_is_stopped(stored: Site, pool: Any) -> None:
    security = LinkSecurityEvents(stored.link())
    flood = [event(peer=f"10.0.{number % 256}.{number // 256}") for number in range(MAX_SECURITY_EVENTS)]
    await security.record(flood)
    with pytest.raises(StoreUnavailable, match="may send 66 a minute"):
        await security.record(flood)
    await LinkSecurityEvents(stored.link("n2")).record([event(reporter="n2")])
    assert len(await on_record(pool)) == MAX_SECURITY_EVENTS + 1
    with pytest.raises(StoreRefused, match="send 2048 at a time"):
        await security.record([*flood, event()])


async def test_a_body_that_is_too_large_is_refused(stored: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_security, "MAX_BYTES", 500)
    with pytest.raises(StoreRefused, match="500 bytes"):
        await LinkSecurityEvents(stored.link()).record([event(detail="x" * 600)])


async def test_a_server_that_cannot_take_them_now_says_so(tmp_path: Path) -> None:
    async with site(tmp_path, None) as at:
        with pytest.raises(StoreUnavailable, match="no server with a database"):
            await LinkSecurityEvents(at.link()).record([event()])
    nowhere = await open_pool("postgresql://127.0.0.1:1/none", size=1, timeout_seconds=2.0)
    try:
        async with site(tmp_path / "second", in_postgres(nowhere)) as at:
            with pytest.raises(StoreUnavailable):
                await LinkSecurityEvents(at.link()).record([event()])
    finally:
        await close_pool(nowhere, timeout_seconds=2.0)


async def test_what_the_store_did_not_take_is_not_counted_against_a_node(tmp_path: Path, pool: Any) -> None:
    """Or a node that had much to tell while the database was away would have to wait long after it."""

    class Away:
        tries = 0

        async def record(self, events: Any) -> None:
            self.tries += 1
            if self.tries <= 4:
                raise StoreUnavailable("the database is away")
            await PostgresSecurity(pool, timeout_seconds=10.0).record(events)

    waiting = [event() for _ in range(KEPT)]
    async with site(tmp_path, in_postgres(None, security=Away())) as at:
        security = LinkSecurityEvents(at.link())
        for _ in range(4):
            with pytest.raises(StoreUnavailable, match="the database is away"):
                await security.record(waiting)
        await security.record(waiting)
    assert len(await on_record(pool)) == KEPT


async def test_a_store_that_refuses_is_told_as_such(tmp_path: Path) -> None:
    class Refusing:
        async def record(self, events: Any) -> None:
            raise StoreRefused("not allowed")

    async with site(tmp_path, in_postgres(None, security=Refusing())) as at:
        with pytest.raises(StoreRefused, match="not allowed"):
            await LinkSecurityEvents(at.link()).record([event()])


def test_an_allowance_comes_back_with_time_and_is_kept_for_so_many_nodes() -> None:
    clock = FakeClock()
    allowance = Allowance(clock.monotonic)
    assert MAX_SECURITY_EVENTS > KEPT + KINDS_A_WINDOW + 1  # all that a daemon can have to send at once
    assert ROWS_A_MINUTE >= KINDS_A_WINDOW + 1
    allowance.take("n1", MAX_SECURITY_EVENTS)
    with pytest.raises(Refused):
        allowance.take("n1", 1)
    clock.advance(60)
    allowance.take("n1", ROWS_A_MINUTE)
    with pytest.raises(Refused):
        allowance.take("n1", 1)
    clock.advance(86_400)
    with pytest.raises(Refused):
        allowance.take("n1", MAX_SECURITY_EVENTS + 1)
    allowance.take("n1", MAX_SECURITY_EVENTS)
    for number in range(MOST_NODES):
        allowance.take(f"m{number}", 1)
    allowance.take("n1", MAX_SECURITY_EVENTS)  # it was silent for longest, and is a new one again
