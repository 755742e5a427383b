"""Connections to PostgreSQL: each with deadlines, each foreign error told as one of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from jobtrail.domain.errors import ConfigError, StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
    Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

CANCEL_SECONDS = 1.0
WANTED = "must look like postgresql://user@host:5432/database"
SCHEMES = ("postgresql://", "postgres://")
# What no retry can mend, because the values themselves are refused (SQLSTATE classes 22, 23 and 54). Everything else
# may be cured from outside (a restart, a migration, a grant, more disk), so the batch stays and is tried again.
REFUSALS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)

# asyncpg's own, some of which are ValueErrors too.
_OWN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# What an unusable address raises besides; an unusable value of a read is no reason to stop either.
_UNUSABLE = (OSError, ValueError, OverflowError)


def open_pool(url: str, *, size: int, timeout_seconds: float) -> Pool:
    """A pool of up to `size` connections, to be awaited or entered. They are made when first needed, so that a database
    that is down stops nothing.

    `timeout_seconds` is the deadline for connecting and for each statement. Raises ConfigError for another kind of URL.
    """
    if not url.startswith(SCHEMES):
        raise ConfigError("database.url", WANTED)
    try:
        urlsplit(url).port  # noqa: B018 - parsing is the check; asyncpg would do it at the first connection
    except ValueError as error:  # its text may hold a part of the password
        raise ConfigError("database.url", f"{WANTED}, with / and @ in a password written as %2F and %40") from error
    return asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        timeout=timeout_seconds,
        command_timeout=timeout_seconds,
        server_settings={"application_name": "jobtrail"},
    )


async def close_pool(pool: Pool, *, timeout_seconds: float) -> None:
    """Close politely within `timeout_seconds`, else cut the connections: a frozen server never answers a goodbye."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await pool.close()
            return
    pool.terminate()


@contextmanager
def translated() -> Iterator[None]:
    """Tell errors of asyncpg and of the network as StoreRefused or StoreUnavailable."""
    try:
        yield
    except REFUSALS as error:
        raise StoreRefused(_describe(error)) from error
    except TimeoutError as error:
        raise StoreUnavailable("the database did not answer in time") from error
    except (*_UNUSABLE, *_OWN) as error:
        raise StoreUnavailable(_describe(error)) from error


def _describe(error: Exception) -> str:
    """One line for the log: what PostgreSQL says, and its code."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, asyncpg.InterfaceError) and "released back to the pool" in text[0]:
        return "the connection was closed by the database or the network"  # asyncpg only tells that it is of no use
    sqlstate = getattr(error, "sqlstate", None)
    return f"{text[0]} (SQLSTATE {sqlstate})" if sqlstate else text[0]


@asynccontextmanager
async def session(pool: Pool, timeout_seconds: float) -> AsyncIterator[Connection]:
    """A connection of the pool. Raises StoreUnavailable, StoreRefused.

    After a missed deadline the connection is closed instead of being asked to roll back. Closing waits a moment for
    the request to cancel that asyncpg has sent: a server process that waits for a lock does not see that its client is
    gone, so it would keep waiting, with its own locks, and each new try would leave one more behind.
    """
    with translated():
        connection = await pool.acquire(timeout=timeout_seconds)
        try:
            yield connection
        except TimeoutError:
            with suppress(TimeoutError, *_OWN, OSError):
                await connection.close(timeout=CANCEL_SECONDS)
            with suppress(asyncpg.InterfaceError):  # one that closed in time has left the pool
                connection.terminate()
            raise
        except asyncio.CancelledError:
            connection.terminate()
            raise
        finally:
            await pool.release(connection, timeout=timeout_seconds)


@asynccontextmanager
async def transaction(
    pool: Pool,
    timeout_seconds: float,
    *,
    isolation: Literal["read_committed", "repeatable_read"] = "read_committed",
    readonly: bool = False,
) -> AsyncIterator[Connection]:
    """A connection in a transaction that commits at the end of the block. Raises StoreUnavailable, StoreRefused.

    A value no row can be made of, such as a time beyond the year 9999, is refused as one that PostgreSQL refuses.
    """
    async with session(pool, timeout_seconds) as connection:
        await connection.execute(_beginning(isolation, timeout_seconds, readonly=readonly))
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError):
            raise  # the session cuts the connection
        except BaseException as error:
            with suppress(*_OWN, OSError):  # one that is gone has rolled back, and what ended it is to be told
                await connection.execute("ROLLBACK")
            if not readonly and isinstance(error, OverflowError | ValueError) and not isinstance(error, _OWN):
                raise StoreRefused(_describe(error)) from error
            raise
        else:
            await connection.execute("COMMIT")


def _beginning(isolation: str, timeout_seconds: float, *, readonly: bool) -> str:
    """BEGIN and its limits, in one way there and back."""
    level = isolation.replace("_", " ").upper()
    if readonly:
        return f"BEGIN ISOLATION LEVEL {level} READ ONLY"
    return f"BEGIN ISOLATION LEVEL {level}; {limits(timeout_seconds)}"


def limits(timeout_seconds: float) -> str:
    """What ends a transaction on the server's side when its client is gone and the network says nothing of it.

    A server process that waits for its client, or for a lock, learns of a dead connection only from keepalives (after
    two hours by default), and holds the rows of the chain that it has locked until then: nothing more of that node
    would be stored. By twice the client's own deadline the client has given up. They hold for this transaction alone,
    so that a pooler, which refuses settings at the start of a connection, does not mind. Narrower limits, as an
    administrator may have set for the login, stay.
    """
    milliseconds = max(1, round(2000 * timeout_seconds))
    return (  # a number alone is put in
        f"SELECT set_config(name, '{milliseconds}', true)"  # noqa: S608
        " FROM (VALUES ('statement_timeout'), ('idle_in_transaction_session_timeout')) AS limits (name)"
        f" WHERE current_setting(name)::interval NOT BETWEEN '1 ms' AND '{milliseconds} ms'"
    )


async def copy_rows(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Append rows with binary COPY. Raises StoreRefused for a value that its column's type cannot hold."""
    try:
        await connection.copy_records_to_table(table, records=rows, columns=columns)
    except (ValueError, TypeError, OverflowError) as error:  # asyncpg's encoders, before anything was sent
        raise StoreRefused(f"{table}: {error}") from error
