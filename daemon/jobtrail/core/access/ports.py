"""Who may come in, and what is on record of those who may not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from jobtrail.core.ports import Row


class NodeToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token by which a node is known. Nobody holds the token itself but the node."""

    node: str
    digest: bytes  # SHA-256 of the token
    expires_us: int | None = None  # None: never
    revoked: bool = False


class NodeTokens(Protocol):
    """The tokens of the nodes."""

    async def tokens(self) -> Sequence[NodeToken]:
        """All of them, also those revoked or expired of late. Raises StoreUnavailable."""
        ...


class SecurityEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody was turned away who should not have come, `times` times between two moments."""

    what: str  # one of WHATS of core.security
    who: str  # the name they came under, as far as it is one that is known; empty: none
    peer: str  # where from: an IP address, or `unix:uid=1000`
    detail: str
    reporter: str  # the node whose daemon says so
    first_us: int
    last_us: int
    times: int


class SecurityReader(Protocol):
    """What is on record of those who were turned away."""

    async def security_events(self, *, since: datetime | None, limit: int) -> Sequence[Row]:
        """The newest first. Raises StoreUnavailable."""
        ...


class SecurityStore(Protocol):
    """Where security events are on record."""

    async def record(self, events: Sequence[SecurityEvent]) -> None:
        """Write them down. Raises StoreUnavailable, StoreRefused."""
        ...


class SecurityArchive(Protocol):
    """Where security events come to their end."""

    async def prune_security(self, *, keep_days: int) -> int:
        """Remove some of those stored longer ago; how many, 0 when none is left.

        Raises StoreUnavailable, StoreRefused.
        """
        ...


Notice = Callable[[str, str, str, str], None]  # what, who, peer, detail
