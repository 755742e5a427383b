"""Reads the packed bodies that nodes forward. However densely a body is packed, what it unpacks to is bounded while it
comes in: no more is ever unpacked than may be kept."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from jobtrail.adapters.http.refusals import Refused, encoded_body, too_large, too_slow
from jobtrail.core.link.protocol import FREE_BYTES, MAX_BODY_BYTES, MAX_RATIO, MAX_SENT_BYTES, MEDIA_TYPE

BODY_SECONDS = 15.0
_GZIP = 16 + zlib.MAX_WBITS  # a gzip header and trailer around deflate, zlib.h: inflateInit2
_ENCODINGS = ("gzip", "identity")
Body = TypeVar("Body")


async def read_packed(request: web.Request, hold: Callable[[int], None]) -> bytes:
    """The body of a request, unpacked. `hold` is told of every byte that is kept, and may raise.

    Raises Refused: 413 for what is too large or unpacks to too much, 415 for another encoding or type, 408, 400.
    """
    encoding = _encoding(request)
    if request.content_type != MEDIA_TYPE:
        message = f"a body of type {request.content_type[:64]!r} is not understood here; {MEDIA_TYPE} is"
        raise Refused(415, "invalid_request", "unsupported", message, details={"field": "Content-Type"})
    if request.content_length is not None and request.content_length > MAX_SENT_BYTES:
        raise too_large(MAX_SENT_BYTES)
    unpacking = _Unpacking(packed=encoding == "gzip")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                hold(unpacking.take(chunk))
    except TimeoutError as error:
        raise too_slow(BODY_SECONDS) from error
    except zlib.error as error:
        raise _malformed("is not gzip") from error
    except (RequestPayloadError, ConnectionError) as error:
        raise _malformed("broke off or is wrongly chunked") from error
    return unpacking.whole()


def decoded(decoder: msgspec.msgpack.Decoder[Body], body: bytes) -> Body:
    """What a body says. Raises Refused (400) naming the field that is not as it must be."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(f"is not what {MEDIA_TYPE} says: {str(error)[:200]}") from error


def _encoding(request: web.Request) -> str:
    given = request.headers.getall("Content-Encoding", ["identity"])
    encoding = given[0].strip().lower()
    if len(given) > 1 or encoding not in _ENCODINGS:
        raise encoded_body(", ".join(given))
    return encoding


def _malformed(problem: str) -> Refused:
    return Refused(400, "invalid_request", "invalid", f"the body {problem}")


class _Unpacking:
    """A body as it comes in."""

    def __init__(self, *, packed: bool) -> None:
        self._inflater: Any = zlib.decompressobj(_GZIP) if packed else None
        self._parts: list[bytes] = []
        self._sent = 0
        self._size = 0

    def take(self, chunk: bytes) -> int:
        """Unpack what came; how many bytes more are kept. Raises Refused, zlib.error."""
        self._sent += len(chunk)
        if self._sent > MAX_SENT_BYTES:
            raise too_large(MAX_SENT_BYTES)
        part = chunk if self._inflater is None else self._inflate(chunk)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def whole(self) -> bytes:
        """The body, complete. Raises Refused."""
        if self._inflater is not None and not self._inflater.eof:
            raise _malformed("broke off before the end of what was packed")
        return b"".join(self._parts)

    def _inflate(self, chunk: bytes) -> bytes:
        most = min(MAX_BODY_BYTES, max(FREE_BYTES, self._sent * MAX_RATIO))
        part: bytes = self._inflater.decompress(chunk, most - self._size + 1)  # 0 would mean: without any bound
        if self._size + len(part) > most:
            if most == MAX_BODY_BYTES:
                raise too_large(MAX_BODY_BYTES)
            message = f"the body unpacks to more than {MAX_RATIO} times what was sent; send it as it is"
            raise Refused(413, "invalid_request", "too_large", message, details={"limit_ratio": MAX_RATIO})
        if self._inflater.unused_data:
            raise _malformed("goes on after the end of what was packed")
        return part
