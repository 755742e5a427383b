"""What every Leadership promises, held by the fake and by PostgreSQL's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import psycopg
import pytest

from jobtrail.adapters.postgres import PostgresLeadership
from jobtrail.core.ports import Leadership
from tests.fake_leadership import Council, MemoryLeadership

Make = Callable[[str], Leadership]
Cut = Callable[[], Awaitable[None]]


async def cut_off(url: str) -> None:
    """End every connection that holds a lock of a leader, and wait until they are gone."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchall()
    assert rows == [(True,)]


@pytest.fixture(params=["memory", "postgres"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Make, Cut]]:
    """Makes competitors for a cluster; and cuts the holder off."""
    if request.param == "memory":
        council = Council()

        async def forget() -> None:
            council.holders.clear()

        yield lambda cluster: MemoryLeadership(council, cluster), forget
        return
    url: str = request.getfixturevalue("database")
    async with AsyncExitStack() as stack:

        def make(cluster: str) -> Leadership:
            async def cluster_of() -> str:
                return cluster

            leadership = PostgresLeadership(url, cluster_of=cluster_of, timeout_seconds=10.0)
            stack.push_async_callback(leadership.release)
            return leadership

        yield make, lambda: cut_off(url)


async def test_one_of_several_holds_it_and_goes_on_holding_it(bench: tuple[Make, Cut]) -> None:
    make, _ = bench
    several = [make("c1") for _ in range(4)]
    first = await asyncio.gather(*(one.held() for one in several))
    assert sorted(first) == [False, False, False, True]
    for _ in range(3):
        assert await asyncio.gather(*(one.held() for one in several)) == first


async def test_each_cluster_has_its_own(bench: tuple[Make, Cut]) -> None:
    make, _ = bench
    assert [await make(cluster).held() for cluster in ("c1", "c2", "", "c1")] == [True, True, True, False]


async def test_who_is_asked_twice_at_a_time_says_the_same(bench: tuple[Make, Cut]) -> None:
    make, _ = bench
    one = make("c1")
    assert await asyncio.gather(*(one.held() for _ in range(5))) == [True] * 5


async def test_another_has_it_once_it_is_released(bench: tuple[Make, Cut]) -> None:
    make, _ = bench
    one, other = make("c1"), make("c1")
    assert (await one.held(), await other.held()) == (True, False)
    await other.release()  # of what it does not hold
    assert await one.held()
    await one.release()
    await one.release()
    assert (await other.held(), await one.held()) == (True, False)


async def test_who_is_cut_off_holds_it_no_longer_and_another_takes_over(bench: tuple[Make, Cut]) -> None:
    make, cut = bench
    one, other = make("c1"), make("c1")
    assert (await one.held(), await other.held()) == (True, False)
    await cut()
    assert (await other.held(), await one.held()) == (True, False)
    await cut()
    assert (await one.held(), await other.held()) == (True, False)
