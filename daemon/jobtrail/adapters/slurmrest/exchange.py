"""HTTP with slurmrestd: one request, its answer's bytes, and what a failure means."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from jobtrail.adapters.slurmrest.auth import TokenSource
from jobtrail.adapters.slurmrest.settings import RestSettings
from jobtrail.domain.errors import SlurmAnswerInvalid, SlurmDenied, SlurmUnavailable

MAX_ANSWER_BYTES = 134_217_728  # about 50,000 jobs as v0.0.38 writes them, 23,000 as v0.0.42 does
MAX_REQUESTS = 2  # at once
_CHUNK_BYTES = 262_144


class Reply(msgspec.Struct, frozen=True):
    """What came back, with a status below 600."""

    status: int
    is_json: bool
    body: bytes | bytearray


class Unreachable(SlurmUnavailable):
    """There was no connection, or it broke: whoever answers next may be another slurmrestd."""


class AnswerTooLarge(SlurmAnswerInvalid):
    """More than is read of one answer, which is held in memory until its records are decoded."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            "answer",
            f"is larger than {limit} bytes, the most that is read at once; let slurmctld hold fewer jobs (MinJobAge "
            "and MaxJobCount in slurm.conf), or set slurm.rest_version to an older version, which takes less room",
        )


class Exchange:
    """Requests to one slurmrestd, at most two at once."""

    def __init__(
        self, settings: RestSettings, tokens: TokenSource, *, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        self.where = settings.url
        self._base = settings.base_url
        self._tokens = tokens
        self._max_bytes = max_answer_bytes
        self._timeout_seconds = settings.timeout_seconds
        self._gate = asyncio.Semaphore(MAX_REQUESTS)
        connector: aiohttp.BaseConnector = (
            aiohttp.TCPConnector() if settings.socket_path is None else aiohttp.UnixConnector(path=settings.socket_path)
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def get(self, path: str, parameters: Mapping[str, str] | None = None) -> Reply:
        """Ask for `path`. Raises Unreachable, SlurmUnavailable, SlurmDenied (401, 403, 511), SlurmAnswerInvalid."""
        async with self._gate:
            headers = await asyncio.to_thread(self._tokens.headers)
            try:
                return await self._get(path, parameters or {}, headers)
            except TimeoutError:
                seconds = f"{self._timeout_seconds:g}"
                raise SlurmUnavailable(f"slurmrestd at {self.where} did not answer within {seconds} s") from None
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, PermissionError):
                    raise SlurmDenied(f"the socket of slurmrestd at {self.where} may not be used: {error}") from None
                raise Unreachable(f"slurmrestd at {self.where} cannot be reached: {error.strerror or error}") from None
            except (aiohttp.ClientError, OSError) as error:
                # Their texts can hold what was sent and received.
                raise Unreachable(f"slurmrestd at {self.where} broke off ({type(error).__name__})") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _get(self, path: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> Reply:
        # A redirect could take the token elsewhere; slurmrestd makes none.
        # 22.05 does not take a bare comma in a query for part of a value.
        query = urlencode(parameters, quote_via=quote, safe="")
        request = self._session.get(
            URL(f"{self._base}{path}{'?' if query else ''}{query}", encoded=True),
            headers={**headers, "Accept": "application/json", "Accept-Encoding": "identity"},
            allow_redirects=False,
        )
        async with request as response:
            body = await self._body(response)
            # A connection for each request costs little at this rate, and a server that was started anew is found at
            # once. It is not announced: to `Connection: close` Slurm 22.05 writes a header behind the body.
            response.close()
            is_json = response.content_type == "application/json"
            if response.status in {401, 403, 511}:
                raise SlurmDenied(f"slurmrestd at {self.where} refuses the user or the token ({response.status})")
            return Reply(response.status, is_json, body)

    async def _body(self, response: aiohttp.ClientResponse) -> bytearray:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._max_bytes:
                raise AnswerTooLarge(self._max_bytes)
        return body
