"""Takes from nodes that hold no database login who was turned away there, so that it is on record in one place.

What a node says is bounded, whatever it sends: rows a minute, the room they take on the way, the length of each text. A
crowd of such requests has room of its own, so it never keeps a node's events waiting.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web

from jobtrail.adapters.http.link_bodies import decoded, read_packed
from jobtrail.adapters.http.link_room import Room, busy
from jobtrail.adapters.http.node_identity import NodeIdentity
from jobtrail.adapters.http.refusals import Note, Refused, json_answer, refusal, too_large
from jobtrail.core.access.ports import SecurityEvent
from jobtrail.core.facts import NodeContradicted, NodeServed, Observer
from jobtrail.core.link.protocol import MAX_SECURITY_EVENTS, SECURITY_PATH, ForwardedTo, SecurityEvents
from jobtrail.domain.errors import JobtrailError, StoreRefused
from jobtrail.domain.events import LATEST_US

MAX_BYTES = 4 * 1024 * 1024  # of a body, unpacked
ROWS_A_MINUTE = 66  # a daemon makes 33; as many again for what it could not send before
MOST_NODES = 50_000
MOST_TIMES = 2**53 - 1
_WHAT = re.compile(r"[a-z_]{1,40}")  # also words of newer nodes
_decoder = msgspec.msgpack.Decoder(SecurityEvents)


class Allowance:
    """How many rows each node may send: what a daemon keeps while no server is there at once, then some a minute."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}  # node -> rows, and when that was

    def take(self, node: str, rows: int) -> None:
        """Let a node send so many. Raises Refused (503) when it may not yet."""
        now = self._now()
        left, at = self._left.pop(node, (float(MAX_SECURITY_EVENTS), now))
        left = min(MAX_SECURITY_EVENTS, left + (now - at) * ROWS_A_MINUTE / 60)
        if len(self._left) >= MOST_NODES:
            self._left.pop(next(iter(self._left)))  # who was silent for longest has all of it again anyway
        self._left[node] = (left - rows if rows <= left else left, now)
        if rows > left:
            raise busy(f"{rows} security events; this node may send {ROWS_A_MINUTE} a minute now", 60)

    def give_back(self, node: str, rows: int) -> None:
        """They were not put on record, so the node is to send them again."""
        if (held := self._left.get(node)) is not None:
            self._left[node] = (held[0] + rows, held[1])


class LinkSecurity:
    """The server's end for security events."""

    def __init__(self, to: ForwardedTo | None, *, identity: NodeIdentity, tell: Observer) -> None:
        self._to = to
        self._identity = identity
        self._tell = tell
        self._room = Room(1)  # one of them uses the database at a time
        self._allowance = Allowance()

    def routes(self) -> list[web.RouteDef]:
        """What is answered over TCP to nodes."""
        return [web.post(SECURITY_PATH, self.forwarded)]

    async def forwarded(self, request: web.Request) -> web.Response:
        """POST /v1/security/forwarded."""
        began, node, rows, status, detail = time.monotonic(), "", 0, 200, ""
        try:
            node = await self._identity.of(request)
            rows = await self._take(request, node)
            return json_answer(200, {"rows": rows})
        except JobtrailError as error:
            refused = _refusal(error)
            status, detail = refused.status, refused.message[:300]
            raise refused from error
        finally:
            seconds = time.monotonic() - began
            self._tell(
                NodeServed(node=node, what="security_events", status=status, rows=rows, seconds=seconds, detail=detail)
            )

    async def _take(self, request: web.Request, node: str) -> int:
        if self._to is None:
            raise Refused(503, "unavailable", "unavailable", "this daemon is no server with a database")
        with self._room.place(node) as place:
            held = 0

            def hold(size: int) -> None:
                nonlocal held
                held += size
                if held > MAX_BYTES:
                    raise too_large(MAX_BYTES)
                place.hold(size)

            events = decoded(_decoder, await read_packed(request, hold)).events
            self._check(request, node, events)
            self._allowance.take(node, len(events))
            try:
                async with self._room.turn():
                    await self._to.security.record([_fitting(event) for event in events])
            except JobtrailError:
                self._allowance.give_back(node, len(events))
                raise
        return len(events)

    def _check(self, request: web.Request, node: str, events: Sequence[SecurityEvent]) -> None:
        if len(events) > MAX_SECURITY_EVENTS:
            message = f"there are {len(events)} events in the body; send {MAX_SECURITY_EVENTS} at a time"
            raise Refused(413, "invalid_request", "too_large", message, details={"limit_rows": MAX_SECURITY_EVENTS})
        for row, event in enumerate(events):
            if not _WHAT.fullmatch(event.what):
                message = "what happened is a word of small letters and underscores, such as wrong_token"
                raise Refused(422, "validation_error", "invalid", message, details={"row": row, "field": "what"})
            if event.reporter != node:
                claimed = event.reporter[:256]
                self._tell(
                    NodeContradicted(node=node, claimed=claimed, what="security_events", peer=request.remote or "")
                )
                message = f"node {node!r} sends this event, which is of node {claimed!r}"
                note = Note("forged_node", node)
                raise Refused(403, "forbidden", "identity", message, details={"row": row}, note=note)


def _fitting(event: SecurityEvent) -> SecurityEvent:
    """As the record can hold it: a node whose clock is wrong, or a long name, is no reason to have nothing."""
    first_us = min(max(event.first_us, 0), LATEST_US - 1)
    return msgspec.structs.replace(
        event,
        who=event.who[:256],
        peer=event.peer[:256],
        detail=event.detail[:300],
        first_us=first_us,
        last_us=min(max(event.last_us, first_us), LATEST_US - 1),
        times=min(max(event.times, 1), MOST_TIMES),
    )


def _refusal(error: JobtrailError) -> Refused:
    if isinstance(error, StoreRefused):
        return Refused(422, "validation_error", "refused", str(error))
    return refusal(error)
