"""Which of several daemons does what needs doing once: the one that holds a lock in the database."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg

from jobtrail.adapters.postgres.pool import translated
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

CLOSE_SECONDS = 2.0


def lock_key(cluster: str) -> int:
    """The cluster's lock: a signed number of 64 bits, which two clusters share by no likely chance."""
    return int.from_bytes(hashlib.sha256(f"jobtrail leader {cluster}".encode()).digest()[:8], "big", signed=True)


class PostgresLeadership:
    """A Leadership of one cluster, on a connection of its own that stays open.

    The lock is that of an open transaction, which nothing but the end of the transaction undoes, and which keeps its
    server connection also behind a PgBouncer that pools transactions; a session's lock would there be shared by all
    clients of the pool. The transaction has read nothing, so it holds no snapshot and keeps vacuum from nothing.
    The server ends it when the holder's machine has not answered for about ten seconds.
    """

    def __init__(self, url: str, *, cluster_of: Callable[[], Awaitable[str | None]], timeout_seconds: float) -> None:
        """`cluster_of`: the cluster that is led; those who do not know its name yet have one leader together."""
        self._url = url
        self._cluster_of = cluster_of
        self._timeout = timeout_seconds
        self._one_at_a_time = asyncio.Lock()
        self._connection: Connection | None = None
        self._held: str | None = None

    async def held(self) -> bool:
        """Whether this daemon leads now; takes the lead if nobody has it. Raises StoreUnavailable."""
        async with self._one_at_a_time:
            cluster = await self._cluster_of() or ""
            if self._held not in (None, cluster):
                await self._part()
            if self._held is not None:
                with suppress(StoreUnavailable):  # the connection is lost, and the lock with it: compete anew
                    return await self._still_there()
            return await self._compete(cluster)

    async def release(self) -> None:
        """Let another lead, and close the connection. A later `held` competes anew."""
        async with self._one_at_a_time:
            await self._part()

    async def _still_there(self) -> bool:
        """True: while its transaction lives, the lock is there. Raises StoreUnavailable when it does not."""
        try:
            with translated():
                assert self._connection is not None
                await self._connection.execute("SELECT 1")
        except BaseException:
            self._cut()
            raise
        return True

    async def _compete(self, cluster: str) -> bool:
        try:
            with translated():
                connection = await self._connected()
                await connection.execute("BEGIN")
                if await connection.fetchval(SQL["leader_try"], lock_key(cluster)):
                    await connection.execute(SQL["leader_stay"])  # not fetch: its portal would keep a snapshot open
                    self._held = cluster
                else:
                    await connection.execute("ROLLBACK")
        except BaseException:
            self._cut()
            raise
        return self._held is not None

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=self._timeout,
                command_timeout=self._timeout,
                statement_cache_size=0,  # a pooler may give each transaction another server connection
                server_settings={"application_name": "jobtrail"},
            )
        return self._connection

    async def _part(self) -> None:
        """Say goodbye, so that the lock is free at once; a server that does not answer is left without one."""
        connection, self._connection, self._held = self._connection, None, None
        if connection is not None:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=CLOSE_SECONDS)

    def _cut(self) -> None:
        """Be without a connection, at once: the server ends the transaction when it notices."""
        connection, self._connection, self._held = self._connection, None, None
        if connection is not None:
            connection.terminate()
