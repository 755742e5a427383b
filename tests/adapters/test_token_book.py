"""Tokens of nodes while the database answers slowly, or not at all: no node waits for what is known already."""

import asyncio
import hashlib
from collections.abc import Sequence

import pytest

from jobtrail.adapters.http import verified_nodes
from jobtrail.adapters.http.verified_nodes import TokenBook
from jobtrail.core.access.ports import NodeToken
from jobtrail.domain.errors import StoreUnavailable

TOKEN = "0123456789abcdef"


class Tokens:
    """A NodeTokens with one token, which answers when it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: StoreUnavailable | None = None
        self.asked = 0

    async def tokens(self) -> Sequence[NodeToken]:
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return [NodeToken(node="n1", digest=hashlib.sha256(TOKEN.encode()).digest())]


async def test_while_the_database_is_slow_what_is_known_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens()
    book = TokenBook(tokens)
    assert await book.find(TOKEN) is not None
    monkeypatch.setattr(verified_nodes, "FRESH_SECONDS", -1.0)
    monkeypatch.setattr(verified_nodes, "RETRY_SECONDS", 0.0)
    tokens.may_answer.clear()
    async with asyncio.timeout(60.0):
        found = await asyncio.gather(*(book.find(TOKEN) for _ in range(200)))
        assert all(one is not None and one.node == "n1" for one in found)
        assert await book.find(TOKEN) is not None  # nor does anybody wait who comes later
    assert tokens.asked == 2
    tokens.may_answer.set()
    assert await book.find("another-token-0000") is None


async def test_a_database_that_answers_at_once_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a revocation counts from the first request on that may know of it."""
    tokens = Tokens()
    book = TokenBook(tokens)
    monkeypatch.setattr(verified_nodes, "FRESH_SECONDS", -1.0)
    monkeypatch.setattr(verified_nodes, "RETRY_SECONDS", 0.0)
    for count in (1, 2, 3):
        await book.find(TOKEN)
        assert tokens.asked == count


async def test_what_was_never_read_or_long_ago_is_no_knowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens()
    book = TokenBook(tokens)
    tokens.error = StoreUnavailable("the database is away")
    with pytest.raises(StoreUnavailable):
        await book.find(TOKEN)
    with pytest.raises(StoreUnavailable, match="cannot be checked"):  # and is not asked again in the same second
        await book.find(TOKEN)
    assert tokens.asked == 1
    monkeypatch.setattr(verified_nodes, "RETRY_SECONDS", 0.0)
    tokens.error = None
    assert await book.find(TOKEN) is not None
    tokens.error = StoreUnavailable("the database is away")
    monkeypatch.setattr(verified_nodes, "FRESH_SECONDS", -1.0)
    assert await book.find(TOKEN) is not None
    monkeypatch.setattr(verified_nodes, "STALE_SECONDS", -1.0)
    with pytest.raises(StoreUnavailable):
        await book.find(TOKEN)


async def test_who_gives_up_waiting_stops_nobody_else() -> None:
    tokens = Tokens()
    book = TokenBook(tokens)
    tokens.may_answer.clear()
    first = asyncio.ensure_future(book.find(TOKEN))
    second = asyncio.ensure_future(book.find(TOKEN))
    while not tokens.asked:
        await asyncio.sleep(0)
    first.cancel()
    tokens.may_answer.set()
    assert await second is not None
    assert tokens.asked == 1
