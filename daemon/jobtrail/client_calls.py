"""One request to a daemon and what came back: what the client of the REST API and the commands stand on.

Without the shapes of the answers, which take time to load: `jobtrail exec` begins its command the sooner.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec

from jobtrail.client_tls import ONLY_HTTPS, OwnCertificate, tls_context
from jobtrail.domain.errors import ConfigError, JobtrailError

T = TypeVar("T")
Word = str | int | datetime | None
OK, CREATED = 200, 201
CERTIFICATE_REFUSED = (
    "; a server that demands a client certificate ends the connection so where none is shown, or none that it trusts "
    "(cert_file, --cert-file)"
)
_NOTHING: Mapping[str, Word] = {}


class ApiError(JobtrailError):
    """The API said no. `code` is its word, such as not_found; `field` what of the question is wrong, where it says."""

    def __init__(self, status: int, code: str, message: str, field: str | None) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message
        self.field = field


class Unreachable(JobtrailError):
    """Nobody answered, not in time, or somebody who is not Jobtrail."""


class Answer(msgspec.Struct, frozen=True):
    """What came back, whatever it means."""

    status: int
    body: bytes


class _Details(msgspec.Struct):
    field: str | None = None


class _Problem(msgspec.Struct):
    error: str = "no_code"
    message: str = "no reason given"
    details: _Details = msgspec.field(default_factory=_Details)


class Caller:
    """Asks one daemon. To be entered with `async with`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        socket: str | None = None,
        token: str | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        """With a `socket`, that path is asked whatever `url` says of a host.

        Over https the server's certificate must be signed by one of `ca_file` (PEM), else by one that the system
        trusts. The certificate of `cert_file` is shown to a server that asks for one, with the key of `key_file`, else
        of the same file (PEM, not encrypted, mode 0600 or 0640). An `ssl_context` decides all that alone. Raises
        ConfigError for a file that cannot be used, and for a certificate that would not be shown.
        """
        own = _own_certificate(cert_file, key_file)
        if own is not None and (socket is not None or not url.lower().startswith("https://")):
            raise ConfigError("cert_file", f"{ONLY_HTTPS}, and {socket or url} is asked without TLS")
        if own is not None and ssl_context is not None:
            raise ConfigError("cert_file", "has no effect beside ssl_context; load the certificate into that")
        if ssl_context is None and (ca_file is not None or own is not None):
            ssl_context = tls_context(ca_file)
            if own is not None:
                own.load_into(ssl_context)
        self._tls: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._url = "http://localhost" if socket is not None else url.rstrip("/")
        self._socket = socket
        self._headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = None if self._socket is None else aiohttp.UnixConnector(self._socket)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def where(self) -> str:
        """Whom it asks, for people."""
        return self._socket or self._url

    async def call(
        self,
        method: str,
        path: str,
        *,
        words: Mapping[str, Word] = _NOTHING,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; `words` that are None are left out, a `body` is JSON. Raises Unreachable."""
        if self._session is None:
            raise RuntimeError("enter the client with `async with` before asking")
        params = {name: _word(value) for name, value in words.items() if value is not None}
        if body is not None:
            headers = {"Content-Type": "application/json", **(headers or {})}
        try:
            async with self._session.request(
                method,
                self._url + path,
                params=params,
                data=body,
                headers=headers,
                ssl=self._tls,
                allow_redirects=False,  # the token is for this server
            ) as response:
                return Answer(response.status, await response.read())
        except aiohttp.ClientSSLError as error:
            raise Unreachable(f"no TLS with {self.where}: {_tls_problem(error)}") from error
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"no daemon answers on {self.where}: {_words(error.os_error)}") from error
        except TimeoutError as error:
            raise Unreachable(f"no answer on {self.where} within {self._timeout.total:.1f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"no daemon answers on {self.where}: {error}{self._perhaps(error)}") from error

    def _perhaps(self, error: Exception) -> str:
        """In TLS 1.3 a server refuses a certificate after the client's handshake (RFC 8446, section 4.4.2.4), and the
        alert that says why is often lost with the connection."""
        ended = isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionResetError)) or (
            isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.EPIPE)
        )
        return CERTIFICATE_REFUSED if ended and self.where.lower().startswith("https://") else ""

    async def ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        words: Mapping[str, Word] = _NOTHING,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """The answer to a request that was taken. Raises ApiError where it was not, and Unreachable."""
        answer = await self.call(method, path, words=words, body=body, headers=headers)
        self.check(answer)
        return self._decoded(answer, kind)

    def check(self, answer: Answer) -> None:
        """Raise ApiError for a refusal, Unreachable for one that is none of Jobtrail's."""
        if answer.status not in (OK, CREATED):
            problem = self._decoded(answer, _Problem)
            raise ApiError(answer.status, problem.error, problem.message, problem.details.field)

    def _decoded(self, answer: Answer, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"what answers on {self.where} is not Jobtrail: {error}") from error


def _own_certificate(cert_file: str | Path | None, key_file: str | Path | None) -> OwnCertificate | None:
    if cert_file is not None:
        return OwnCertificate(cert_file=cert_file, key_file=key_file)
    if key_file is not None:
        raise ConfigError("key_file", f"{key_file} is the key of no certificate; name that with cert_file")
    return None


def _tls_problem(error: aiohttp.ClientSSLError) -> str:
    """What OpenSSL said."""
    if not isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.os_error)
    cause = error.certificate_error
    return f"its certificate is not good: {getattr(cause, 'verify_message', '') or cause}"


def _words(error: OSError) -> str:
    """The system's own words: asyncio puts the address in their place. A name that is not known has no such number."""
    known = error.errno is not None and error.errno > 0
    return os.strerror(error.errno) if known and error.errno is not None else error.strerror or str(error)


def _word(value: str | int | datetime | None) -> str:
    """A value as it stands in an address."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
