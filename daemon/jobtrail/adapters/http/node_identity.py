"""Which node a request of the node link comes from: what it tells of events and samples is told in that node's name."""

from __future__ import annotations

import re
from typing import Protocol

from aiohttp import web

from jobtrail.adapters.http.headers import one_header
from jobtrail.adapters.http.refusals import forbidden
from jobtrail.adapters.http.tokens import TokenFile
from jobtrail.core.link.protocol import NODE_HEADER
from jobtrail.domain.errors import InvalidEvent

# As SlurmdNodeName and host names are written: RFC 1123 and underscores; the first character is none of the marks.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


class NodeIdentity(Protocol):
    """Finds out which node sends."""

    async def of(self, request: web.Request) -> str:
        """The name of the node that `request` surely comes from.

        Raises Refused: 401 when it shows nothing by which a node could be known, 403 when what it shows is not good or
        is another node's than it names, 503 when that cannot be checked now.
        """
        ...


def named_node(request: web.Request) -> str:
    """The node that a request names as its sender, which proves nothing. Raises InvalidEvent."""
    name = one_header(request, NODE_HEADER)
    if name is None:
        raise InvalidEvent(NODE_HEADER, "is missing from the request's headers; it names the node that sends")
    if not _NAME.fullmatch(name):
        raise InvalidEvent(
            NODE_HEADER, "must be a node's name: up to 253 letters, digits, dots, underscores and hyphens"
        )
    return name


class SharedToken:
    """A NodeIdentity of sites whose nodes trust each other: all show one token, and each says which node it is."""

    def __init__(self, token: TokenFile) -> None:
        self._token = token

    async def of(self, request: web.Request) -> str:
        """The node that the request names, if it shows the nodes' token. Raises Refused."""
        self._token.check(request)
        return named_node(request)


def shared_token(path: str) -> NodeIdentity:
    """The identity that a file with the nodes' token gives; nobody's without one. Raises ConfigError."""
    if not path:
        return NoNodes()
    token = TokenFile(
        path,
        setting="http.node_token_file",
        unset="",
        missing="a node that forwards here needs `Authorization: Bearer <token>`",
    )
    token.load()
    return SharedToken(token)


class NoNodes:
    """A NodeIdentity of a daemon to which no node forwards."""

    async def of(self, request: web.Request) -> str:
        """Raises Refused, whoever asks."""
        del request
        raise forbidden("no node may forward to this server while http.node_token_file is not set")
