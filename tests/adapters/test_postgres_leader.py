"""Leadership in PostgreSQL: one connection, nothing left behind, nothing kept from vacuum, a server that is away."""

import asyncio
from typing import Any

import psycopg
import pytest

from jobtrail.adapters.postgres import PostgresLeadership
from jobtrail.adapters.postgres.leader import lock_key
from jobtrail.domain.errors import StoreUnavailable
from tests.daemon_process import wait_until

OURS = (
    "SELECT state, backend_xid, backend_xmin FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


class Site:
    """A daemon's view: its leadership, and the cluster's name as it knows it."""

    def __init__(self, url: str, cluster: str | None = "c1", *, timeout_seconds: float = 10.0) -> None:
        self.cluster = cluster
        self.leadership = PostgresLeadership(url, cluster_of=self._cluster_of, timeout_seconds=timeout_seconds)

    async def _cluster_of(self) -> str | None:
        return self.cluster


def connections(watcher: psycopg.Connection) -> list[tuple[Any, ...]]:
    """State, transaction id and snapshot of all other connections to the watcher's database."""
    return watcher.execute(OURS).fetchall()


async def test_a_daemon_has_one_connection_and_keeps_nothing_from_vacuum(database: str) -> None:
    one, other = Site(database), Site(database)
    # One watcher throughout: the server may still see one that was closed a moment ago.
    with psycopg.connect(database, autocommit=True) as watcher:
        await asyncio.to_thread(wait_until, lambda: connections(watcher) == [], "earlier connections to be closed")
        for _ in range(2):
            assert (await one.leadership.held(), await other.leadership.held()) == (True, False)
            assert sorted(connections(watcher)) == [("idle", None, None), ("idle in transaction", None, None)]
        await one.leadership.release()
        await other.leadership.release()
        await asyncio.to_thread(wait_until, lambda: connections(watcher) == [], "both connections to be closed")


async def test_a_limit_on_idle_transactions_does_not_unseat_the_leader(database: str) -> None:
    """A limit of the server's or the role's, shorter than the time between two questions.

    It is long enough for a busy machine between BEGIN and the statement that lifts it.
    """
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER ROLE CURRENT_USER SET idle_in_transaction_session_timeout = '2s'")
        try:
            one, other = Site(database), Site(database)
            assert await one.leadership.held()
            connection.execute("SELECT pg_sleep(3)")
            assert not await other.leadership.held()
            assert await one.leadership.held()
        finally:
            connection.execute("ALTER ROLE CURRENT_USER RESET idle_in_transaction_session_timeout")
    await one.leadership.release()
    await other.leadership.release()


async def test_the_name_once_known_is_what_is_led(database: str) -> None:
    """Who led those without a name competes under the name, and leaves the nameless to others."""
    one, other, third = Site(database, None), Site(database, None), Site(database, "c1")
    assert (await one.leadership.held(), await other.leadership.held()) == (True, False)
    one.cluster = "c1"
    assert (await one.leadership.held(), await other.leadership.held()) == (True, True)
    assert not await third.leadership.held()
    for site in (one, other, third):
        await site.leadership.release()


async def test_a_cancelled_question_holds_nothing(database: str) -> None:
    """Stopped in the middle, it must not leave a lock behind that nobody knows of."""
    one, other = Site(database), Site(database)
    assert await one.leadership.held()
    task = asyncio.create_task(one.leadership.held())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await one.leadership.release()
    async with asyncio.timeout(60):
        while not await other.leadership.held():  # the server notices in its own time that the connection is gone
            pass
    await other.leadership.release()


async def test_a_server_that_is_away_has_no_leader(database: str, tmp_path: Any) -> None:
    gone = Site(f"postgresql://postgres@/jobtrail?host={tmp_path}", timeout_seconds=2.0)
    with pytest.raises(StoreUnavailable):
        await gone.leadership.held()
    await gone.leadership.release()


def test_a_clusters_lock_is_its_own_and_the_same_everywhere() -> None:
    """Daemons of two releases must mean the same lock."""
    assert lock_key("c1") == -7157343621089411884
    assert len({lock_key(name) for name in ("", "c1", "c2", "C1")}) == 4
    assert all(-(2**63) <= lock_key(str(number)) < 2**63 for number in range(1000))
