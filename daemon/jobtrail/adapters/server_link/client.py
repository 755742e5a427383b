"""Requests to servers: each with deadlines, each failure told as one of ours."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
import zlib
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from jobtrail.adapters.server_link.answers import refused
from jobtrail.adapters.server_link.credentials import Credentials, CredentialsUnusableError
from jobtrail.adapters.server_link.settings import LinkSettings
from jobtrail.core.facts import Observer, ServerAsked
from jobtrail.core.link.protocol import FREE_BYTES, MAX_RATIO, MEDIA_TYPE, NODE_HEADER
from jobtrail.domain.errors import StoreRefused, StoreUnavailable

CONNECTIONS = 4  # at a time: events, and samples of three kinds
KEEP_SECONDS = 60.0  # a server keeps a silent connection somewhat longer
NAME_SECONDS = 10  # how long an address is used before the name is looked up again
CLOSE_SECONDS = 2.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
LEVEL = 6  # level 1 makes batches a tenth larger, 9 none smaller
UNPACKED_BYTES = 256  # smaller bodies gain nothing
IN_THREAD_BYTES = 65_536  # packing more than this takes milliseconds, which hooks would wait for


class _UnreachableError(StoreUnavailable):
    """Nothing came back: the server is down, or hung up on a connection that it had kept open."""


class ServerLink:
    """One node's way to its servers. Any server takes anything, so the next one is asked where one fails."""

    def __init__(self, settings: LinkSettings, *, tell: Observer) -> None:
        self._settings = settings
        self._credentials = Credentials(settings)
        self.tell = tell
        self._session: aiohttp.ClientSession | None = None
        self._at = random.randrange(len(settings.urls))  # noqa: S311 - spreads load, guards nothing

    @property
    def server(self) -> str:
        """The server that is asked next."""
        return self._settings.urls[self._at % len(self._settings.urls)]

    async def ask(self, what: str, path: str, body: object = None) -> bytes:
        """The body of a server's 200; `what` is a word of ServerAsked. A GET without a body, else a POST.

        Raises StoreUnavailable, ChainGap, StoreRefused. A connection that breaks is tried once more at once: the server
        may have hung up on it while it was silent, or another one stands behind the address now.
        """
        packed = None if body is None else await _packed(body)
        try:
            return await self._try(what, path, packed)
        except _UnreachableError:
            return await self._try(what, path, packed)

    async def close(self) -> None:
        """Hang up, within a moment."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await session.close()

    async def _try(self, what: str, path: str, packed: tuple[bytes, str] | None) -> bytes:
        server, began, outcome, detail = self.server, time.monotonic(), "timeout", ""
        try:
            status, headers, answer = await self._exchange(server, path, packed)
            if status == 200:
                outcome = "ok"
                return answer
            outcome, error = refused(server, status, headers, answer)
            detail = str(error)
            if outcome in {"busy", "unavailable", "odd"}:
                self._at += 1
            raise error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome, told = _failure(server, error)
            detail = str(told)
            self._at += 1
            raise told from error
        except CredentialsUnusableError as error:
            outcome, detail = "credentials", str(error)
            raise
        finally:
            sent = 0 if packed is None else len(packed[0])
            seconds = time.monotonic() - began
            self.tell(
                ServerAsked(server=server, what=what, outcome=outcome, seconds=seconds, sent_bytes=sent, detail=detail)
            )

    async def _exchange(
        self, server: str, path: str, packed: tuple[bytes, str] | None
    ) -> tuple[int, dict[str, str], bytes]:
        headers = {NODE_HEADER: self._settings.node, "Accept": "application/json", "Accept-Encoding": "identity"}
        headers.update(self._credentials.headers())
        options: dict[str, Any] = {"allow_redirects": False, "headers": headers}
        if server.startswith("https://"):
            options["ssl"] = self._credentials.context()
        if packed is not None:
            options["data"], encoding = packed
            headers["Content-Type"] = MEDIA_TYPE
            if encoding:
                headers["Content-Encoding"] = encoding
        method = "GET" if packed is None else "POST"
        async with self._connected().request(method, f"{server}{path}", **options) as response:
            return response.status, dict(response.headers), self._credentials.redacted(await _bounded(response))

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS, keepalive_timeout=KEEP_SECONDS, ttl_dns_cache=NAME_SECONDS
                ),
                timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds, sock_connect=settings.connect_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises ValueError when it is larger than any that makes sense."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


async def _packed(body: object) -> tuple[bytes, str]:
    """A body as it is sent, and how it is packed.

    One that packs more densely than servers let pass is sent as it is. Raises StoreRefused.
    """
    try:
        plain = msgspec.msgpack.encode(body)
    except (OverflowError, ValueError) as error:  # a number beyond 64 bits, which no column would hold either
        raise StoreRefused(str(error)) from error
    if len(plain) < UNPACKED_BYTES:
        return plain, ""
    packed = await asyncio.to_thread(_gzip, plain) if len(plain) > IN_THREAD_BYTES else _gzip(plain)
    too_dense = len(plain) > FREE_BYTES and len(plain) > len(packed) * MAX_RATIO
    return (plain, "") if too_dense else (packed, "gzip")


def _gzip(plain: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def _failure(server: str, error: Exception) -> tuple[str, StoreUnavailable]:
    """The outcome in one word, and our own error for what the network or the other side did."""
    if isinstance(error, TimeoutError):
        return "timeout", StoreUnavailable(f"the server {server} did not answer in time")
    if (cause := _tls_problem(error)) is not None:
        return "tls", StoreUnavailable(f"no TLS with the server {server}: {cause}")
    if isinstance(error, ValueError):
        return "odd", StoreUnavailable(f"{server} does not answer as a server does: {error}")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return "odd", StoreUnavailable(f"{server} does not answer as a server does: {type(error).__name__}")
    return "unreachable", _UnreachableError(f"the server {server} is not reached: {_words(error)}")


def _tls_problem(error: BaseException) -> str | None:
    """What OpenSSL said, anywhere behind `error`."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, aiohttp.ClientConnectorCertificateError):
            behind = behind.certificate_error
        if isinstance(behind, ssl.SSLCertVerificationError):
            return f"its certificate is not good: {behind.verify_message}"
        if isinstance(behind, ssl.SSLError) and not isinstance(behind, aiohttp.ClientError):
            return behind.reason or str(behind)
        behind = behind.__cause__ or behind.__context__
    return None


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    return str(error).strip().partition("\n")[0] or type(error).__name__
