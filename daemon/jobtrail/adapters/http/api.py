"""The HTTP surface as a whole: its listeners, their routes, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from jobtrail.adapters.http.access import Access
from jobtrail.adapters.http.analytics import PATH as QUESTION_PATH
from jobtrail.adapters.http.benchmarks import DECISIONS
from jobtrail.adapters.http.chains import LINK_PREFIXES
from jobtrail.adapters.http.connection import Connection, GuardedServer
from jobtrail.adapters.http.listeners import tcp_server, unix_server, unix_socket
from jobtrail.adapters.http.manual import PATHS as MANUAL_PATHS
from jobtrail.adapters.http.named_tokens import Scope
from jobtrail.adapters.http.pokes import MODE as POKE_MODE
from jobtrail.adapters.http.pokes import poke_settings
from jobtrail.adapters.http.posts import CONTROLLER_HOOKS
from jobtrail.adapters.http.refusals import INTERNAL, Refused, encoded_body, forbidden, refusal
from jobtrail.adapters.http.routes import Routes, Services
from jobtrail.adapters.http.settings import Addresses, HttpSettings
from jobtrail.adapters.http.tls_door import peer_of, tls_doors
from jobtrail.adapters.http.tokens import admin_token, hook_token, read_token, write_token
from jobtrail.adapters.http.web_file import WebFile
from jobtrail.core.access.ports import Notice
from jobtrail.core.facts import EventRejected, Fact, Observer
from jobtrail.core.link.protocol import SECURITY_PATH
from jobtrail.core.ports import Clock
from jobtrail.domain.errors import ConfigError, JobtrailError

READING = frozenset({"GET", "HEAD"})
CONTROLLER_PATHS = tuple(f"/v1/hooks/slurm/{hook}" for hook in CONTROLLER_HOOKS)
TELL: web.AppKey[Observer] = web.AppKey("tell")
_log = logging.getLogger("jobtrail.http")


class HttpApi:
    """Serves hooks and events on a Unix socket, and health and metrics there and on TCP.

    With a service for pokes there is a second Unix socket, open to all users, for what is theirs.
    """

    def __init__(
        self,
        services: Services,
        *,
        tell: Observer,
        clock: Clock,
        settings: HttpSettings,
        notice: Notice | None = None,
        inherited: Mapping[str, socket.socket] | None = None,
    ) -> None:
        """`notice` hears who was turned away; `inherited` are sockets that systemd opened, by path."""
        self._inherited = inherited or {}
        self._tell = tell
        self._settings = settings
        self._hook_token = hook_token(settings.hook_token_file)
        self._notice = notice or _notice_nothing
        self._web = WebFile(settings.web_config_file, crl_file=settings.client_crl_file)
        self._access = _access(settings, self._web)
        self.routes = Routes(
            services, access=self._access, hook_token=self._hook_token, tell=tell, clock=clock, settings=settings
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Addresses]:
        """Listen while the context lasts; at its end requests in progress have five seconds to finish.

        Raises ConfigError when an address cannot be taken.
        """
        settings, routes = self._settings, self.routes
        self._check_inherited()
        self._hook_token.load()
        self._access.load()
        async with AsyncExitStack() as stack:
            listener = stack.enter_context(
                unix_socket(
                    "http.socket",
                    Path(settings.socket),
                    group=settings.socket_group,
                    inherited=self._inherited.get(settings.socket),
                )
            )
            local = await stack.enter_async_context(
                self._served([*routes.reading(), *routes.writing()], settings=settings.local)
            )
            remote = await stack.enter_async_context(
                self._served([*routes.reading(), *routes.remote_writing()], self._access.admit, self._refuse_writes)
            )
            if routes.on_poke_socket():
                await stack.enter_async_context(self._taking_pokes())
            stack.push_async_callback(_drain, local, remote)
            # Entered last, so that no client is taken while the others are drained.
            tcp = await tcp_server(self._doors(remote), settings.host, settings.port)
            stack.callback(tcp.close)
            unix = await unix_server(local, listener)
            stack.callback(unix.close)
            host, port = tcp.sockets[0].getsockname()[:2]
            yield Addresses(socket=settings.socket, host=host, port=port, tls=self._web.now().context is not None)

    def _check_inherited(self) -> None:
        """Raise ConfigError for a socket that systemd opened and nobody would serve: its clients would wait in vain."""
        served = {self._settings.socket}
        if self.routes.on_poke_socket():
            served.add(self._settings.poke_socket)
        for path in self._inherited:
            if path not in served:
                named = ", ".join(sorted(served))
                problem = f"systemd listens on {path} for this daemon, whose sockets are {named}"
                raise ConfigError("http.socket", problem)

    def _doors(self, server: GuardedServer) -> Callable[[], asyncio.Protocol]:
        """What takes clients in over TCP."""
        if self._web.now().context is None:
            return server
        seconds = self._settings.header_timeout_seconds
        return tls_doors(server, self._web, seconds=seconds, tell=self._tell, notice=self._notice)

    @asynccontextmanager
    async def _taking_pokes(self) -> AsyncIterator[None]:
        """Listen on the socket that every user may connect to. What is refused there is not told.

        Nothing is lost with it, and nobody should be able to fill the daemon's log.
        """
        path, settings = Path(self._settings.poke_socket), poke_settings(self._settings)
        async with AsyncExitStack() as stack:
            inherited = self._inherited.get(str(path))
            listener = stack.enter_context(unix_socket("http.poke_socket", path, mode=POKE_MODE, inherited=inherited))
            served = self._served(self.routes.on_poke_socket(), settings=settings, tell=_tell_nobody)
            server = await stack.enter_async_context(served)
            stack.push_async_callback(_drain, server)
            unix = await unix_server(server, listener)
            stack.callback(unix.close)
            yield

    @asynccontextmanager
    async def _served(
        self,
        routes: Sequence[web.RouteDef],
        *middlewares: Middleware,
        settings: HttpSettings | None = None,
        tell: Observer | None = None,
    ) -> AsyncIterator[GuardedServer]:
        """The server of one listener."""
        settings, tell = settings or self._settings, tell or self._tell
        application = web.Application(middlewares=[self._answer, *middlewares], client_max_size=settings.max_body_bytes)
        application[TELL] = tell
        application.add_routes(routes)
        runner = web.AppRunner(application)
        await runner.setup()
        plain = runner.server
        assert plain is not None
        try:
            yield GuardedServer(
                plain.request_handler, request_factory=plain.request_factory, settings=settings, tell=tell
            )
        finally:
            await runner.cleanup()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors become answers here, and each refusal is told once."""
        if isinstance(request.protocol, Connection):
            request.protocol.request_began()
        try:
            encoding = request.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity" and not _is_link(request):
                raise encoded_body(encoding)
            return await handler(request)
        except (JobtrailError, web.HTTPException) as error:
            return self._refused(refusal(error), request)
        except Exception as error:  # noqa: BLE001 - the boundary: a mistake costs one answer, not the daemon
            _log.exception("%s %s failed", request.method, request.path[:200])
            self._tell(EventRejected(reason=INTERNAL.reason, detail=f"{type(error).__name__}: {error}"))
            return INTERNAL.answer()

    def _refused(self, refused: Refused, request: web.Request) -> web.StreamResponse:
        """The answer to a refusal; told only where something was sent: who reads a wrong address loses no event."""
        if refused.note is not None:
            self._notice(refused.note.what, refused.note.who, _peer(request), refused.message)
        if not _only_asks(request) and not _is_link(request):
            request.app[TELL](refused.fact())
        return refused.answer()

    @web.middleware
    async def _refuse_writes(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """TCP knows no sender, and on a node every user can reach a loopback port; but a token is known."""
        decides = DECISIONS.fullmatch(request.path) or MANUAL_PATHS.fullmatch(request.path)
        takes_token = request.path in CONTROLLER_PATHS or decides or _is_link(request)
        if not _only_asks(request) and not takes_token:
            raise forbidden(f"nothing can be written over TCP; use the Unix socket {self._settings.socket}")
        return await handler(request)


def _only_asks(request: web.Request) -> bool:
    """Whether nothing is written, whatever comes of it."""
    return request.method in READING or (request.method == "POST" and request.path == QUESTION_PATH)


def _is_link(request: web.BaseRequest) -> bool:
    """Whether this is what a node forwards: it is packed, and told of apart."""
    return request.path == SECURITY_PATH or request.path.startswith(LINK_PREFIXES)


def _checks_itself(request: web.BaseRequest) -> bool:
    """Whether this has its own way to know who asks."""
    return request.path in CONTROLLER_PATHS or _is_link(request)


def _peer(request: web.Request) -> str:
    """Where a request comes from: the address, or that it is this machine."""
    wire = request.transport
    return "this machine" if wire is None or request.remote in (None, "") else peer_of(wire)


def _access(settings: HttpSettings, web_file: WebFile) -> Access:
    """Who may over TCP, by the files of the settings."""
    files = {
        Scope.READ: read_token(settings.read_token_file, users_socket=settings.poke_socket),
        Scope.WRITE: write_token(settings.write_token_file),
        Scope.ADMIN: admin_token(settings.admin_token_file),
    }
    return Access(settings, web_file, files, checks_itself=_checks_itself)


def _notice_nothing(_: str, __: str, ___: str, ____: str) -> None:
    """Where nothing is put on record."""


def _tell_nobody(_: Fact) -> None:
    """An observer that forgets."""


async def _drain(*servers: GuardedServer) -> None:
    await asyncio.gather(*(server.drain() for server in servers))
