"""Puts on record who was turned away, within bounds that nobody outside can break.

The same happening again within a minute is one event that counts; of different ones so many are kept a minute, and what
is beyond is counted together. So whoever tries a million times makes one row, and whoever comes under a million names
some thirty and one that says how many there were.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from jobtrail.core.access.ports import SecurityEvent, SecurityStore
from jobtrail.core.facts import Observer, SecurityNoticed
from jobtrail.core.ports import Clock
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import JobtrailError

WHATS = (
    "wrong_sender",  # a uid on a Unix socket that may not send this
    "wrong_token",
    "wrong_password",
    "wrong_scope",  # known, and not allowed this
    "certificate_refused",  # a client's certificate is expired, revoked, of another authority, or for another name
    "tls_refused",  # no common version or cipher, or no TLS at all
    "forged_node",  # a node speaks in another's name
    "node_token_refused",  # unknown, expired or revoked
)
KINDS_A_WINDOW = 32
WINDOW_SECONDS = 60.0
KEPT = 1024  # events at most while the store is away; the newest give way
MAX_DETAIL = 300
LAST_SECONDS = 2.0  # at the stop
OTHERS = "(others)"


class SecurityLog:
    """Takes notice, tells the observer, and writes to the store once a minute, the first of a quiet time at once."""

    def __init__(self, store: SecurityStore | None, *, node: str, clock: Clock, tell: Observer) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._tell = tell
        self._open: dict[tuple[str, str, str], SecurityEvent] = {}
        self._waiting: list[SecurityEvent] = []
        self._window_ends = 0.0
        self._wake = asyncio.Event()
        self.lost = 0  # events given up because the store was away too long

    def notice(self, what: str, who: str, peer: str, detail: str) -> None:
        """Take notice. Never blocks, never fails."""
        now_us = self._clock.time_us()
        key = (what, who, peer)
        if key not in self._open and len(self._open) >= KINDS_A_WINDOW:
            key = (what, OTHERS, OTHERS)
        held = self._open.get(key)
        if held is None:
            self._open[key] = SecurityEvent(
                what=what, who=key[1], peer=key[2], detail=detail[:MAX_DETAIL], reporter=self._node, first_us=now_us,
                last_us=now_us, times=1,
            )  # fmt: skip
            self._wake.set()
        else:
            self._open[key] = _again(held, detail, now_us)
        self._tell(
            SecurityNoticed(what=what, who=who, peer=peer, detail=detail[:MAX_DETAIL], repeated=held is not None)
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Write down what was noticed until `stop`."""
        while not stop.is_set():
            await wait_for_any(stop.wait(), self._wake.wait())
            await wait_for_any(stop.wait(), timeout_seconds=max(0.0, self._window_ends - self._clock.monotonic()))
            await self.flush()
            self._window_ends = self._clock.monotonic() + WINDOW_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self.flush()

    async def flush(self) -> None:
        """Write down what is noticed and not yet written; what the store does not take waits for the next time."""
        self._wake.clear()
        self._waiting += self._open.values()
        self._open.clear()
        if self._store is None:
            self._waiting.clear()  # told to the observer is all that can be done here
        if self._store is not None and self._waiting:
            try:
                await self._store.record(self._waiting)
            except JobtrailError:
                self.lost += len(self._waiting[KEPT:])
                del self._waiting[KEPT:]
                self._wake.set()
            else:
                self._waiting = []


def _again(event: SecurityEvent, detail: str, now_us: int) -> SecurityEvent:
    """One more of the same kind. What is said of it otherwise is added, as long as there is room."""
    both = f"{event.detail}; {detail}".removeprefix("; ")
    said = event.detail if detail in event.detail or len(both) > MAX_DETAIL else both
    return SecurityEvent(
        what=event.what, who=event.who, peer=event.peer, detail=said, reporter=event.reporter,
        first_us=event.first_us, last_us=now_us, times=event.times + 1,
    )  # fmt: skip
