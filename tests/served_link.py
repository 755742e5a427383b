"""A server that nodes forward to, on a real socket with real TLS, and nodes' links to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from jobtrail.adapters.http.node_identity import NodeIdentity, NoNodes, shared_token
from jobtrail.adapters.http.verified_nodes import VerifiedNodes
from jobtrail.adapters.postgres import (
    PostgresChains,
    PostgresEnergySamples,
    PostgresGpuSamples,
    PostgresJobParts,
    PostgresOverRuns,
    PostgresSamples,
    PostgresSecurity,
    PostgresSink,
)
from jobtrail.adapters.server_link import LinkEvents, LinkSettings, ServerLink
from jobtrail.core.facts import Fact
from jobtrail.core.link.protocol import ForwardedTo
from jobtrail.core.ports import StoreReport
from jobtrail.domain.audit import ChainedEvent, ChainHead
from tests.certificates import Authority
from tests.served_api import Served, served

TOKEN = "d1b0c7a4e5f60718293a4b5c6d7e8f90"
SECONDS = {"timeout_seconds": 10.0}


def write_token(path: Path, token: str = TOKEN) -> Path:
    """A file that holds a token as it must be."""
    path.write_text(f"{token}\n")
    path.chmod(0o600)
    return path


def in_postgres(pool: Any, *, at_a_time: int = 2, **other: Any) -> ForwardedTo:
    """All that is forwarded goes into a database, but for what `other` names."""
    facts: list[Fact] = []
    ports: dict[str, Any] = {
        "events": PostgresSink(pool, **SECONDS),
        "owners": PostgresChains(pool, **SECONDS),
        "parts": PostgresJobParts(pool, **SECONDS),
        "samples": PostgresSamples(pool, **SECONDS, tell=facts.append),
        "gpu_samples": PostgresGpuSamples(pool, **SECONDS, tell=facts.append),
        "energy_samples": PostgresEnergySamples(pool, **SECONDS, tell=facts.append),
        "over_runs": PostgresOverRuns(pool, **SECONDS),
        "security": PostgresSecurity(pool, **SECONDS),
    }
    return ForwardedTo(**{**ports, **other}, at_a_time=at_a_time)


class Known:
    """A NodeIdentity that notes on how many connections how often somebody came."""

    def __init__(self, identity: NodeIdentity) -> None:
        self._identity = identity
        self.asked = 0
        self.ports: set[int] = set()

    async def of(self, request: web.Request) -> str:
        assert request.transport is not None
        self.asked += 1
        self.ports.add(request.transport.get_extra_info("peername")[1])
        return await self._identity.of(request)


class Site:
    """A server and its authority; nodes reach it by `link`."""

    def __init__(
        self, server: Served, authority: Authority, token_file: Path, stack: AsyncExitStack, known: Known
    ) -> None:
        self.server = server
        self.known = known
        self.authority = authority
        self.token_file = token_file
        self.asked: list[Fact] = []
        self._stack = stack

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.addresses.url

    def link(self, node: str = "n1", **settings: Any) -> ServerLink:
        """A node's link, closed with the site."""
        known = {"urls": (self.url,), "ca_file": str(self.authority.certificate), "token_file": str(self.token_file)}
        link = ServerLink(LinkSettings(**{**known, "node": node, **settings}), tell=self.asked.append)
        self._stack.push_async_callback(link.close)
        return link


@asynccontextmanager
async def site(
    directory: Path, to: ForwardedTo | None, *, certificates: bool = False, **settings: Any
) -> AsyncIterator[Site]:
    """A server that listens with TLS while the context lasts. `certificates`: nodes are known by theirs alone."""
    authority = Authority(directory / "authority")
    certificate, key = authority.server()
    web = directory / "web.yml"
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    if certificates:
        tls |= {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": str(authority.certificate)}
    web.write_text(yaml.safe_dump({"tls_server_config": tls}))
    web.chmod(0o600)
    token_file = write_token(directory / "nodes.token")
    by_certificate = VerifiedNodes(None, domain="", otherwise=NoNodes())
    known = Known(by_certificate if certificates else shared_token(str(token_file)))
    own = directory / "server"
    own.mkdir(exist_ok=True)
    async with (
        served(own, web_config_file=str(web), forwarded_to=to, node_identity=known, **settings) as server,
        AsyncExitStack() as stack,
    ):
        assert server.addresses.url.startswith("https://")
        yield Site(server, authority, token_file, stack, known)


class ManyNodes:
    """An EventSink for several nodes: each speaks through its own link."""

    def __init__(self, at: Site) -> None:
        self._site = at
        self._events: dict[str, LinkEvents] = {}

    def of(self, node: str) -> LinkEvents:
        """One node's."""
        return self._events.setdefault(node, LinkEvents(self._site.link(node)))

    async def head(self, chain_id: str) -> ChainHead:
        return await self.of("n1").head(chain_id)

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        return await self.of(node).store(events, node=node, trail_only=trail_only)
