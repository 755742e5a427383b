"""Handshakes take turns, so that a crowd is served one after another instead of all running out of time together."""

from __future__ import annotations

import asyncio

import pytest

from jobtrail.adapters.http import tls_door
from jobtrail.adapters.http.tls_door import Turns


async def test_no_more_at_once_than_there_are_turns() -> None:
    turns = Turns(2, seconds=60.0)
    first, second = await turns.take(), await turns.take()
    third = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    assert not third.done()
    first()
    first()  # given back once, whoever says so
    await third
    fourth = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    assert not fourth.done()
    second()
    await fourth


async def test_who_never_ends_a_handshake_keeps_nobody_waiting_for_long() -> None:
    turns = Turns(1, seconds=0.05)
    await turns.take()
    async with asyncio.timeout(60):
        await turns.take()


async def test_who_waits_too_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_door, "WAIT_SECONDS", 0.05)
    turns = Turns(1, seconds=60.0)
    await turns.take()
    with pytest.raises(TimeoutError):
        await turns.take()
