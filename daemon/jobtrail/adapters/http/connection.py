"""Connections with deadlines and a cap.

aiohttp bounds the size of a request but not the time a client takes to send its head or to read the answer, nor the
number of connections (https://docs.aiohttp.org/en/stable/web_reference.html, `web.Application`, `run_app`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from jobtrail.adapters.http.refusals import INTERNAL, Refused, malformed_request
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.core.facts import EventRejected, Observer

MAX_HEAD_FIELD_BYTES = 8190
LINGER_SECONDS = 1.0  # how long the rest of a refused body is read and dropped, so that the answer is seen
DRAIN_SECONDS = 5.0
CANCEL_SECONDS = 0.5

_log = logging.getLogger("jobtrail.http")


def _canned(status: str, extra: str, code: str, message: str) -> bytes:
    body = f'{{"error":"{code}","message":"{message}","details":{{}}}}\n'
    return (
        f"HTTP/1.1 {status}\r\nServer: jobtrail\r\nContent-Type: application/json\r\n{extra}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


BUSY = _canned("503 Service Unavailable", "Retry-After: 1\r\n", "unavailable", "too many connections")
HEAD_TOO_SLOW = _canned("408 Request Timeout", "", "invalid_request", "the request head was not complete in time")


class Connection(RequestHandler):
    """One client. A single timer holds whatever deadline applies: head, then answer, then the next head."""

    def __init__(
        self, server: GuardedServer, settings: HttpSettings, tell: Observer, *, admitted: bool = False
    ) -> None:
        """`admitted`: its place was taken before, for the handshake."""
        self._guard = server
        self._admitted = admitted
        self._retiring = False
        self.trust: bytes | None = None  # whom the client's certificate was checked against; None: there is none
        self._settings = settings
        self._tell = tell
        self._wire: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head_begun = False
        self._busy = False
        self._answered: web.BaseRequest | None = None  # the last one; the rest of its body may come after the answer
        self._idle_seconds = settings.header_timeout_seconds
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=_log,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to turn it off, which its annotation forgot
            max_line_size=MAX_HEAD_FIELD_BYTES,
            max_field_size=MAX_HEAD_FIELD_BYTES,
            lingering_time=min(LINGER_SECONDS, settings.header_timeout_seconds / 2),
            auto_decompress=False,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the client in, or turn it away when the listener is full."""
        wire = cast(asyncio.Transport, transport)  # a stream's transport always is one; uvloop's does not inherit
        if not self._admitted and not self._guard.admit():
            self._tell(EventRejected(reason="busy", detail="too many connections"))
            wire.write(BUSY)
            wire.close()
            return
        self._wire = wire
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Note that a head has begun; bytes of clients turned away are dropped."""
        if self._wire is not None:
            if data and not self._head_begun and not self._body_goes_on():
                self._head_begun = True
                if not self._busy and self._idle_seconds > self._settings.header_timeout_seconds:
                    self._arm(self._settings.header_timeout_seconds, self._head_expired)
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Free the place."""
        if self._wire is not None:
            self._wire = None
            self._guard.left()
        self._answered = None  # the request knows the connection: they would wait for the garbage collector together
        self._disarm()
        super().connection_lost(exc)

    def idle_for(self, seconds: float) -> None:
        """Let this client, who is known, keep silent for longer between two requests."""
        self._idle_seconds = max(self._idle_seconds, seconds)

    def request_began(self) -> None:
        """The head is complete: the handler has its own deadlines from here."""
        self._busy = True
        self._disarm()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer within its deadline, then wait for the next head."""
        self._arm(self._settings.answer_timeout_seconds, self._hang_up)
        if isinstance(resp, web.HTTPException):
            # Raised before any handler or middleware ran: an Expect header with something else than 100-continue.
            self._tell(EventRejected(reason="unsupported", detail=resp.reason))
        resp.headers["Server"] = "jobtrail"
        if self._guard.draining or self._retiring:
            resp.force_close()
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._busy = False
            self._answered = None if self._wire is None else request
            self._await_head()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP with 400, and what aiohttp itself stumbles over with 500."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has already begun")
        if status == 400:
            refused: Refused = malformed_request((message or "").strip().partition("\n")[0])
        else:
            refused = INTERNAL
            _log.error("request failed outside its handler", exc_info=exc)
        self._tell(refused.fact())
        answer = refused.answer()
        answer.force_close()
        return answer

    def retire(self) -> None:
        """Hang up, unless a request is being answered: that one is finished first."""
        self._retiring = True
        if not self._busy:
            self.force_close()

    def _body_goes_on(self) -> bool:
        """Whether what comes is of a body that was answered before its end: it is dropped, and no head."""
        return self._answered is not None and not self._answered.content.is_eof()

    def _await_head(self) -> None:
        self._head_begun = False
        if self._wire is not None:
            self._arm(self._idle_seconds, self._head_expired)

    def _head_expired(self) -> None:
        if self._wire is not None and self._head_begun and not self._wire.is_closing():
            self._tell(EventRejected(reason="timeout", detail="the request head was not complete in time"))
            self._wire.write(HEAD_TOO_SLOW)
        self.force_close()
        # A client that reads nothing would keep the closing socket open.
        self._arm(LINGER_SECONDS, self._hang_up)

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def _arm(self, seconds: float, action: Callable[[], None]) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, action)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class GuardedServer(web.Server):
    """Makes the connections of one listener and knows how many there are."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        request_factory: Callable[..., Any],
        settings: HttpSettings,
        tell: Observer,
    ) -> None:
        super().__init__(handler, request_factory=request_factory)
        self._settings = settings
        self._tell = tell
        self._open = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self.draining = False

    def __call__(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self, self._settings, self._tell)

    def admitted(self) -> Connection:
        """A protocol for a client whose place is taken already."""
        return Connection(self, self._settings, self._tell, admitted=True)

    def keep(self, handshake: asyncio.Task[None]) -> None:
        """Remember a handshake until it is done."""
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    def admit(self) -> bool:
        """Whether there is room for one more, which is taken if so."""
        if self.draining or self._open >= self._settings.max_connections:
            return False
        self._open += 1
        self._empty.clear()
        return True

    def left(self) -> None:
        """A connection is gone."""
        self._open -= 1
        if self._open == 0:
            self._empty.set()

    async def drain(self) -> None:
        """Let requests in progress finish for five seconds, then end all connections."""
        self.draining = True
        for handshake in self._handshakes:
            handshake.cancel()
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.retire()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("requests still unanswered after %s s are given up", DRAIN_SECONDS)
        await self.shutdown(CANCEL_SECONDS)
