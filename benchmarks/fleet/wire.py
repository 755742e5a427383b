"""One simulated node's way to its server: HTTP over TLS by hand, so that ten thousand fit beside what they measure.

The bodies, their packing, deadlines, how long a silent connection is kept and what each answer means are those of the
daemon's own link (jobtrail.adapters.server_link); the client library is not.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections import Counter

import msgspec

from jobtrail.adapters.server_link.answers import refused
from jobtrail.core.link.protocol import MEDIA_TYPE, NODE_HEADER
from jobtrail.domain.errors import StoreUnavailable

KEEP_SECONDS = 60.0
TOTAL_SECONDS = 20.0
UNPACKED_BYTES = 256
LEVEL = 6


class Wire:
    """A connection to the server, made when it is needed and closed when it was silent for a minute."""

    def __init__(
        self,
        *,
        port: int,
        context: ssl.SSLContext,
        node: str,
        token: str,
        counts: Counter[str],
        gate: asyncio.Semaphore,
    ) -> None:
        """`gate`: how many nodes of this process connect at a time. A real one has a processor of its own; were
        thousands of handshakes in progress in one process, it would be this that lets them run out of time."""
        self._port = port
        self._context = context
        self._gate = gate
        self._head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n{NODE_HEADER}: {node}\r\n"
        self._counts = counts
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._one = asyncio.Lock()

    async def ask(self, what: str, path: str, body: object = None) -> bytes:
        """The body of a 200. Raises StoreUnavailable, ChainGap, StoreRefused, as the daemon's link."""
        request = self._request(path, None if body is None else msgspec.msgpack.encode(body))
        async with self._one:
            try:
                try:
                    status, headers, answer = await self._exchange(request)
                except (OSError, EOFError):
                    self._counts["broken"] += 1
                    self.close()
                    status, headers, answer = await self._exchange(request)
            except TimeoutError as error:
                self._counts["timeout"] += 1
                self.close()
                raise StoreUnavailable("no answer in time") from error
            except (OSError, EOFError, ValueError) as error:
                self._counts["unreachable"] += 1
                self.close()
                raise StoreUnavailable(f"not reached: {error}") from error
        self._counts["sent_bytes"] += len(request)
        if status == 200:
            self._counts[f"ok_{what}"] += 1
            return answer
        outcome, told = refused("the server", status, headers, answer)
        self._counts[outcome] += 1
        raise told

    def _request(self, path: str, plain: bytes | None) -> bytes:
        if plain is None:
            return f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode()
        encoding = ""
        if len(plain) >= UNPACKED_BYTES:
            packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            plain, encoding = packer.compress(plain) + packer.flush(), "Content-Encoding: gzip\r\n"
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: {MEDIA_TYPE}\r\n{encoding}"
        return f"{head}Content-Length: {len(plain)}\r\n\r\n".encode() + plain

    async def _exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is None:
            async with self._gate, asyncio.timeout(TOTAL_SECONDS):
                self._counts["handshakes"] += 1
                self._reader, self._writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
                )
        async with asyncio.timeout(TOTAL_SECONDS):
            assert self._writer is not None
            assert self._reader is not None
            self._writer.write(request)
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.title(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            answer = await self._reader.readexactly(int(headers.get("Content-Length", "0")))
        if headers.get("Connection", "").lower() == "close":
            self.close()
        else:
            self._timer = asyncio.get_running_loop().call_later(KEEP_SECONDS, self.close)
        return int(lines[0].split(" ")[1]), headers, answer

    @property
    def is_open(self) -> bool:
        """Whether a connection is held."""
        return self._writer is not None

    def close(self) -> None:
        """Hang up."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = self._timer = None
