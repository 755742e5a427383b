"""The way in over TLS: the handshake has a deadline and takes a place before it begins, and what fails goes on record.

asyncio's own servers with TLS make the connection's protocol once the handshake is done, so that any number of clients
could be in one, and tell nobody of those that fail.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import Any, cast

from jobtrail.adapters.http.connection import GuardedServer
from jobtrail.adapters.http.tls import names_in
from jobtrail.adapters.http.web_file import Live, WebFile
from jobtrail.core.access.ports import Notice
from jobtrail.core.facts import EventRejected, Observer

SHUTDOWN_SECONDS = 1.0
# Thousands of handshakes at once would each take longer than they may, and none be completed. So few are in progress,
# and the others wait, with their time not yet running. One that is slow goes on without a turn: whoever begins and
# never ends handshakes cannot keep others from theirs. Who waited long is hung up on: its client is about to give up,
# so that the handshake would be for nothing, and it comes back after a while of its own choice.
AT_ONCE = 64
TURN_SECONDS = 1.0
WAIT_SECONDS = 3.0
# asyncio keeps a buffer of 256 KiB for each connection with TLS from its beginning on: 2.5 GiB for 10,000 silent nodes.
# A record of TLS has 16 KiB at most (RFC 8446, section 5.1), so a larger buffer only saves turns of the loop.
BUFFER_BYTES = 32_768
MOST_EARLY_BYTES = 262_144  # that come with the last message of the handshake


class Turns:
    """Which handshakes of a listener are in progress."""

    def __init__(self, at_once: int = AT_ONCE, *, seconds: float = TURN_SECONDS) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._seconds = seconds

    async def take(self) -> Callable[[], None]:
        """Wait for a turn, in the order of coming; what gives it back. Raises TimeoutError."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self._free.acquire()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._free.release()

        asyncio.get_running_loop().call_later(self._seconds, give_back)
        return give_back


class TlsDoor(asyncio.Protocol):
    """One client until the handshake is done; then its connection takes over."""

    def __init__(
        self, server: GuardedServer, web: WebFile, turns: Turns, *, seconds: float, tell: Observer, notice: Notice
    ) -> None:
        self._server = server
        self._web = web
        self._turns = turns
        self._seconds = seconds
        self._tell = tell
        self._notice = notice
        self._early = bytearray()
        self._gone = False
        self._shaking: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or hang up: nothing can be said before the handshake."""
        wire = cast(asyncio.Transport, transport)
        if not self._server.admit():
            self._tell(EventRejected(reason="busy", detail="too many connections"))
            wire.abort()
            return
        wire.pause_reading()
        self._shaking = asyncio.get_running_loop().create_task(self._shake(wire))
        self._server.keep(self._shaking)

    def data_received(self, data: bytes) -> None:
        """What comes before the connection has taken over."""
        self._early += data
        if len(self._early) > MOST_EARLY_BYTES:
            self._gone = True

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client went during the handshake."""
        del exc
        self._gone = True

    async def _shake(self, wire: asyncio.Transport) -> None:
        live, peer = self._web.now(), peer_of(wire)
        assert live.context is not None
        give_back: Callable[[], None] | None = None
        try:
            give_back = await self._turns.take()
            secure = await asyncio.get_running_loop().start_tls(
                wire, self, live.context, server_side=True,
                ssl_handshake_timeout=self._seconds, ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )  # fmt: skip
        except (OSError, asyncio.CancelledError) as error:
            self._failed(error, peer)
            wire.abort()
            self._server.left()
            return
        finally:
            if give_back is not None:
                give_back()
        if self._gone or secure is None or not self._is_allowed(secure, live, peer):
            wire.abort()
            self._server.left()
            return
        connection = self._server.admitted()
        if certificate_of(secure) is not None:
            connection.trust = live.trust
        secure.set_protocol(connection)
        connection.connection_made(secure)
        if self._early:
            connection.data_received(bytes(self._early))

    def _failed(self, error: BaseException, peer: str) -> None:
        """Put a refused certificate or a wrong version on record; who only hangs up is nobody to remember."""
        if isinstance(error, ssl.SSLCertVerificationError):
            self._notice("certificate_refused", "", peer, f"the client's certificate: {error.verify_message}")
        elif isinstance(error, ssl.SSLError) and error.reason is not None:
            what = "certificate_refused" if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE" else "tls_refused"
            self._notice(what, "", peer, error.reason.replace("_", " ").lower())
        elif isinstance(error, ConnectionAbortedError | TimeoutError):
            self._tell(EventRejected(reason="timeout", detail="the TLS handshake was not complete in time"))

    def _is_allowed(self, secure: asyncio.Transport, live: Live, peer: str) -> bool:
        """Whether the certificate has one of the names that are let in, where there is a list of them."""
        tls = live.config.tls_server_config
        if tls is None or not tls.client_allowed_sans:
            return True
        names = names_in(secure.get_extra_info("peercert"))
        if names & set(tls.client_allowed_sans):
            return True
        shown = ", ".join(sorted(names))[:200]
        self._notice("certificate_refused", "", peer, f"no name of the certificate is in client_allowed_sans: {shown}")
        return False


def peer_of(wire: Any) -> str:
    """The other side's address, without its port."""
    name = wire.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) and name else "unknown"


def tls_doors(
    server: GuardedServer, web: WebFile, *, seconds: float, tell: Observer, notice: Notice
) -> Callable[[], TlsDoor]:
    """What makes a door for each client of a listener."""
    sslproto.SSLProtocol.max_size = BUFFER_BYTES  # of all in this process: there is no other way to say it
    turns = Turns()
    return lambda: TlsDoor(server, web, turns, seconds=seconds, tell=tell, notice=notice)


def certificate_of(transport: asyncio.BaseTransport | None) -> dict[str, Any] | None:
    """The certificate that the client showed and that was verified; None for none."""
    shown = None if transport is None else transport.get_extra_info("peercert")
    return shown or None
