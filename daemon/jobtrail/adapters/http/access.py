"""Who comes over TCP, and what they may do there.

Somebody is known by a token, by the password of a user of the web configuration, or by a client certificate. That last
alone opens what tells nothing of single jobs: /metrics, nodes, health. A user reads. What a token may do is its scope.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from jobtrail.adapters.http.connection import Connection
from jobtrail.adapters.http.headers import one_header
from jobtrail.adapters.http.named_tokens import NamedTokens, Principal, Scope
from jobtrail.adapters.http.passwords import Passwords
from jobtrail.adapters.http.refusals import Note, Refused, forbidden, unauthorized
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.adapters.http.tls import expired, names_in
from jobtrail.adapters.http.tls_door import certificate_of
from jobtrail.adapters.http.tokens import BEARER, TokenFile
from jobtrail.adapters.http.web_config import RateLimit
from jobtrail.adapters.http.web_file import Live, WebFile
from jobtrail.domain.errors import ConfigError

WHO: web.RequestKey[Principal] = web.RequestKey("who", Principal)
OPEN_PATHS = frozenset({"/healthz"})  # says nothing but that the daemon lives
NEEDED = "over the network this needs a token, a user's password or a client certificate"
_log = logging.getLogger("jobtrail.http")


class Access:
    """Finds out who asks. `files`: the file of a single token for each scope that has one."""

    def __init__(
        self, settings: HttpSettings, web_file: WebFile, files: Mapping[Scope, TokenFile],
        *, checks_itself: Callable[[web.BaseRequest], bool],
    ) -> None:  # fmt: skip
        """`checks_itself`: what has its own way to know who asks, such as the controller's hooks."""
        self._settings = settings
        self._web = web_file
        self._files = files
        self._named = NamedTokens(settings.tokens_file)
        self._passwords = Passwords()
        self._checks_itself = checks_itself
        self._bucket = Bucket()

    def load(self) -> None:
        """Read all files, and see whether it is safe to listen where it is wished. Raises ConfigError."""
        for file in self._files.values():
            file.load()
        self._named.load()
        self._web.load()
        check_exposure(self._settings, self._web.now(), knows_somebody=self._knows_somebody())
        for warning in self.warnings():
            _log.warning("%s", warning)

    def _knows_somebody(self) -> bool:
        live = self._web.now()
        tokens = any(file.is_set for file in self._files.values()) or self._named.is_set
        return tokens or bool(live.config.basic_auth_users) or live.takes_certificates

    def warnings(self) -> tuple[str, ...]:
        """What of the way in is not as it should be, for /health."""
        told = [f"http.insecure: {self._settings.host} is open to the network; see docs/security.md"]
        if not self._is_open():
            told.clear()
        if self._web.problem is not None:
            told.append(f"the web configuration before goes on: {self._web.problem}")
        return tuple(told)

    def _is_open(self) -> bool:
        """Whether the listener is beyond loopback by `http.insecure` alone."""
        if is_loopback(self._settings.host):
            return False
        return self._web.now().context is None or not self._knows_somebody()

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who is known, and everybody where the page is open."""
        live = self._web.now()
        self._check_trust(request, live)
        wait = self._bucket.taken(live.config.rate_limit, time.monotonic())
        if wait > 0:
            retry = {"Retry-After": str(max(1, round(wait)))}
            raise Refused(429, "too_many_requests", "busy", "too many requests; see rate_limit", headers=retry)
        who = await self._who(request, live)
        if who is not None:
            request[WHO] = who
        elif self._is_closed(live) and request.path not in OPEN_PATHS and not self._checks_itself(request):
            raise self._unknown(request, live)
        answer = await handler(request)
        if not answer.prepared:
            for name, value in live.config.http_server_config.headers.items():
                if value:
                    answer.headers.setdefault(name, value)
        return answer

    def check(self, request: web.Request, scope: Scope) -> None:
        """Raises Refused, unless who asks may do this."""
        who: Principal | None = request.get(WHO)
        if who is not None and scope in who.scopes:
            return
        if who is not None:
            raise forbidden(f"{who.name} may not do this: it takes the scope {scope}", Note("wrong_scope", who.name))
        self._files[scope].check(request)

    def _is_closed(self, live: Live) -> bool:
        """Whether nothing is told to strangers."""
        if live.config.basic_auth_users:
            return True
        return not self._settings.insecure and not is_loopback(self._settings.host)

    @staticmethod
    def _check_trust(request: web.Request, live: Live) -> None:
        """A certificate that was checked against other authorities or revocations is shown anew. Raises Refused."""
        wire = request.protocol
        if isinstance(wire, Connection) and wire.trust not in (None, live.trust):
            wire.retire()
            message = "whom this daemon believes has changed; connect again"
            raise Refused(503, "unavailable", "busy", message, headers={"Retry-After": "1"})

    async def _who(self, request: web.Request, live: Live) -> Principal | None:
        """Raises Refused for a wrong password; a wrong token is told of where one is needed."""
        header = one_header(request, "Authorization")
        certificate = certificate_of(request.transport)
        if certificate is not None and expired(certificate, time.time()):
            raise forbidden("the client's certificate has expired", Note("certificate_refused"))
        if header is not None and (token := BEARER.fullmatch(header)) is not None:
            known = self._by_token(token[1])
            if known is not None:
                return known
        elif header is not None and header[:6].lower() == "basic " and live.config.basic_auth_users:
            return await self._by_password(header[6:], live.config.basic_auth_users)
        return None if certificate is None else self._by_certificate(names_in(certificate))

    def _by_token(self, token: str) -> Principal | None:
        scopes = [scope for scope, file in self._files.items() if file.is_shown(token)]
        if scopes:
            return Principal(f"the token for {' and '.join(scopes)}", frozenset(scopes))
        try:
            return self._named.holder(token)
        except ConfigError as error:
            _log.error("%s", error)
            return None

    async def _by_password(self, told: str, users: Mapping[str, str]) -> Principal:
        try:
            name, colon, password = base64.b64decode(told.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            name, colon, password = b"", b"", b""
        user = name.decode("utf-8", "replace")
        if not colon or not await self._passwords.good(users, user, password):
            # Of an unknown name nothing is written down: it may be a password in the wrong place.
            note = Note("wrong_password", user if user in users else "(unknown)")
            raise unauthorized("user or password is wrong", asks='Basic realm="jobtrail"', note=note)
        return Principal(user, frozenset({Scope.READ}))

    def _by_certificate(self, names: frozenset[str]) -> Principal | None:
        try:
            known = self._named.certified(names)
        except ConfigError as error:
            _log.error("%s", error)
            known = None
        return known or Principal(", ".join(sorted(names))[:200] or "a client with a certificate")

    @staticmethod
    def _unknown(request: web.Request, live: Live) -> Refused:
        told = request.headers.get("Authorization")
        if told is not None and told[:6].lower() == "basic ":
            return forbidden("no user is known here (basic_auth_users)", Note("wrong_password"))
        if told is not None:
            return forbidden("this token is not known here", Note("wrong_token"))
        return unauthorized(NEEDED, asks='Basic realm="jobtrail"' if live.config.basic_auth_users else "Bearer")


class ScopeDoor:
    """One scope over TCP, as those see it who ask for it."""

    def __init__(self, access: Access, scope: Scope) -> None:
        self._access = access
        self._scope = scope

    def check(self, request: web.Request) -> None:
        """Raises Refused, unless who asks may."""
        self._access.check(request, self._scope)


class Bucket:
    """The rate limit of the web configuration, of all clients together."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._at: float | None = None

    def taken(self, limit: RateLimit, now: float) -> float:
        """Take a token; else the seconds until there is one."""
        interval = limit.seconds
        if interval <= 0:
            return 0.0
        most = max(1, limit.burst)
        self._tokens = most if self._at is None else min(most, self._tokens + (now - self._at) / interval)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) * interval


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener on `host`; a name other than localhost may be any address."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_exposure(settings: HttpSettings, live: Live, *, knows_somebody: bool) -> None:
    """Raises ConfigError for a listener that strangers would reach without TLS, or at which nobody could be known."""
    if settings.insecure or is_loopback(settings.host):
        return
    missing = []
    if live.context is None:
        missing.append("TLS (http.web_config_file with tls_server_config)")
    if not knows_somebody:
        missing.append(
            "a way to know who asks, other than a node by its own token (http.read_token_file, http.tokens_file, or in "
            "http.web_config_file basic_auth_users or client_auth_type)"
        )
    if missing:
        raise ConfigError(
            "http.host",
            f"{settings.host} is reached from other machines, and what is missing there is {' and '.join(missing)}; "
            "else listen on 127.0.0.1, or say http.insecure: true on a network that nobody else is in",
        )
