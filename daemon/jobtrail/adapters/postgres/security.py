"""Tables `node_tokens` and `security_log`: by what nodes are known, and who was turned away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import encode, to_datetime
from jobtrail.core.access.ports import NodeToken, SecurityEvent
from jobtrail.core.ports import Row

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool


class PostgresNodeTokens:
    """A NodeTokens on a PostgreSQL pool, and what people do about tokens."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def tokens(self) -> Sequence[NodeToken]:
        """All tokens but those that were over long ago. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL["node_tokens_read"])
        return [
            NodeToken(node=row["node"], digest=row["digest"], expires_us=row["expires_us"], revoked=row["revoked"])
            for row in rows
        ]

    async def list(self, node: str | None, *, all_states: bool) -> Sequence[Row]:
        """Tokens for people to see, of which nobody can make a token. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            return [dict(row.items()) for row in await connection.fetch(SQL["node_tokens_list"], node, all_states)]

    async def add(self, node: str, digest: bytes, *, expires: datetime | None, by: str) -> None:
        """Make `node` known by one more token. Raises StoreRefused where it has two, StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            await connection.execute(SQL["node_token_add"], node, digest, expires, by)

    async def revoke(self, which: str, *, by: str) -> Sequence[Row]:
        """Revoke a token by its id, or all of a node; those that were. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            return [dict(row.items()) for row in await connection.fetch(SQL["node_token_revoke"], which, by)]


class PostgresSecurity:
    """A SecurityStore, SecurityReader and SecurityArchive on a PostgreSQL pool."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def record(self, events: Sequence[SecurityEvent]) -> None:
        """Write events down, all or none. Raises StoreUnavailable, StoreRefused."""
        rows = [
            {
                **{name: _text(getattr(event, name)) for name in ("what", "who", "peer", "detail", "reporter")},
                "first_at": to_datetime(event.first_us),
                "last_at": to_datetime(event.last_us),
                "times": event.times,
            }
            for event in events
        ]
        async with session(self._pool, self._timeout) as connection:
            await connection.execute(SQL["security_write"], encode(rows))

    async def security_events(self, *, since: datetime | None, limit: int) -> Sequence[Row]:
        """Who was turned away, newest first. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            return [dict(row.items()) for row in await connection.fetch(SQL["security_list"], since, limit)]

    async def prune_security(self, *, keep_days: int) -> int:
        """Remove old events, up to 10,000; how many. Raises StoreUnavailable, StoreRefused."""
        async with session(self._pool, self._timeout) as connection:
            removed: int = await connection.fetchval(SQL["security_prune"], keep_days)
        return removed


def _text(text: str) -> str:
    """As PostgreSQL can hold it: without U+0000 and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
