"""Whose chains are held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.statements import SQL

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool


class PostgresChains:
    """A ChainOwners on a PostgreSQL pool."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def owner(self, chain_id: str) -> str | None:
        """The node that writes the chain, None when nothing of it is held. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            found: str | None = await connection.fetchval(SQL["chain_owner"], chain_id)
        return found
