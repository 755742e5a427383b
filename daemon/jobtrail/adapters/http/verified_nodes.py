"""Nodes that are known one by one: by a client certificate or by a token of their own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from jobtrail.adapters.http.headers import one_header
from jobtrail.adapters.http.node_identity import NodeIdentity, named_node
from jobtrail.adapters.http.refusals import Note, Refused, forbidden, unauthorized
from jobtrail.adapters.http.tls import expired, host_names_in, names_in, uris_in
from jobtrail.adapters.http.tls_door import certificate_of
from jobtrail.adapters.http.tokens import BEARER
from jobtrail.core.access.ports import NodeToken, NodeTokens
from jobtrail.domain.errors import StoreUnavailable

FRESH_SECONDS = 10.0  # how long a revocation may take to be known here
RETRY_SECONDS = 1.0  # how soon it is read again where that failed
PATIENCE_SECONDS = 0.5  # how long nodes wait for it to be read anew while what was read before still holds
STALE_SECONDS = 120.0  # how long what was read goes on while the database is away; then nobody can be checked
URI = "jobtrail://node/"
_log = logging.getLogger("jobtrail.http")


class TokenBook:
    """All nodes' tokens, read as a whole: whoever tries a million tokens causes no question to the database.

    One read goes on at a time, on behalf of all. A database that takes its time holds up nobody whose token is known.
    """

    def __init__(self, tokens: NodeTokens) -> None:
        self._tokens = tokens
        self._held: Mapping[bytes, NodeToken] = {}
        self._read_at = float("-inf")
        self._began_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def find(self, token: str) -> NodeToken | None:
        """What is held of a token; None for one that nobody has. Raises StoreUnavailable.

        It is looked up by its digest: how far a wrong one agrees with a right one shows in no time.
        """
        now = time.monotonic()
        if now - self._read_at > FRESH_SECONDS:
            if self._reading is None and now - self._began_at > RETRY_SECONDS:
                self._began_at = now
                self._reading = asyncio.ensure_future(self._read())
                self._reading.add_done_callback(self._done)
            await self._wait(now)
        if time.monotonic() - self._read_at > STALE_SECONDS:
            raise StoreUnavailable("tokens of nodes cannot be checked: the database is away")
        return self._held.get(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest())

    async def _wait(self, now: float) -> None:
        """Wait until the tokens are read: not for long, where those read before still hold."""
        if self._reading is None:
            return
        holds = now - self._read_at <= STALE_SECONDS
        await asyncio.wait(
            {self._reading}, timeout=max(0.0, self._began_at + PATIENCE_SECONDS - now) if holds else None
        )

    async def _read(self) -> None:
        read = await self._tokens.tokens()
        self._held = {one.digest: one for one in read}
        self._read_at = time.monotonic()

    def _done(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        error = None if reading.cancelled() else reading.exception()
        if error is not None and not isinstance(error, StoreUnavailable):  # that one is told where it hinders somebody
            _log.error("tokens of nodes could not be read", exc_info=error)


class VerifiedNodes:
    """A NodeIdentity: a certificate whose subject alternative name is the node's, else the node's own token."""

    def __init__(self, book: TokenBook | None, *, domain: str = "", otherwise: NodeIdentity) -> None:
        """`domain`: also NODE.DOMAIN in a certificate is the node. `otherwise` is asked where neither is known."""
        self._book = book
        self._domain = domain.strip(".").lower()
        self._otherwise = otherwise

    async def of(self, request: web.Request) -> str:
        """The node that surely sends. Raises Refused, InvalidEvent, StoreUnavailable."""
        node = named_node(request)
        header = one_header(request, "Authorization")
        shown = None if header is None else BEARER.fullmatch(header)
        certificate = certificate_of(request.transport)
        if certificate is not None:
            if expired(certificate, time.time()):
                raise forbidden(f"the certificate of {node} has expired", Note("certificate_refused", node))
            if self._is_of(certificate, node):
                return node
            if shown is None:
                told = ", ".join(sorted(names_in(certificate)))[:200] or "nobody"
                message = f"the certificate is for {told}, and not for node {node}"
                raise forbidden(message, Note("forged_node", node))
        if shown is None:
            if header is None:
                raise unauthorized("a node shows a client certificate with its name, or its token as a bearer token")
            raise forbidden(
                "a node's token is sent as `Authorization: Bearer <token>`", Note("node_token_refused", node)
            )
        return await self._by_token(request, node, shown[1])

    def _is_of(self, certificate: Mapping[str, Any], node: str) -> bool:
        """Whether a name of the kind that names hosts, or our own kind of URI, is the node's: an e-mail address that
        reads like it is somebody else's."""
        hosts = {node, f"{node}.{self._domain}"} if self._domain else {node}
        return bool(hosts & host_names_in(certificate)) or f"{URI}{node}" in uris_in(certificate)

    async def _by_token(self, request: web.Request, node: str, token: str) -> str:
        found = None if self._book is None else await self._book.find(token)
        if found is None:
            try:
                return await self._otherwise.of(request)
            except Refused as refused:
                if refused.status == 403:
                    raise forbidden("this token is no node's", Note("node_token_refused", node)) from refused
                raise
        if found.revoked:
            raise forbidden(f"this token of {found.node} was revoked", Note("node_token_refused", found.node))
        if found.expires_us is not None and found.expires_us <= time.time_ns() // 1000:
            raise forbidden(f"this token of {found.node} has expired", Note("node_token_refused", found.node))
        if found.node != node:
            raise forbidden(f"this is the token of {found.node}, and not of {node}", Note("forged_node", node))
        return node
