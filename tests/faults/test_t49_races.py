"""T-49: several gateways write one chain, several sealers seal, readers verify meanwhile: no fork, no deadlock."""

import asyncio
import random
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobtrail.adapters.postgres import PostgresSink, PostgresVerifier, close_pool, open_pool, session
from jobtrail.domain.errors import ChainGap
from tests.chains import ChainWriter
from tests.faults.figures import Figures, often
from tests.sealed_trail import NODES, TrailBench

pytestmark = [pytest.mark.fault("T-49")]


async def one(pool: Any, query: str) -> Any:
    async with session(pool, 10.0) as connection:
        return await connection.fetchval(query)


async def test_gateways_and_sealers_at_once_leave_one_chain_and_nobody_waits_for_ever(
    database: str, tmp_path: Path, draw: random.Random, figures: Figures
) -> None:
    """Each of the gateways offers every batch of every node, in an order of its own, cut as it likes."""
    rounds = often(quick=3, full=20)
    pools = [await open_pool(database, size=4, timeout_seconds=30.0) for _ in range(3)]
    benches = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        benches.append(TrailBench(pools[0], tmp_path / str(number), signed=False, anchored=False))
    benches[1].clock = benches[0].clock
    writers = [ChainWriter(node) for node in NODES]
    batches = 0
    async with asyncio.timeout(300):
        for number in range(rounds):
            for writer in writers:
                for job in range(5):
                    writer.whole_job(f"slurm-{number}{job}")  # the same jobs on every node
            offers = [_offer(pool, writer, random.Random(draw.random())) for pool in pools for writer in writers]
            sealing = [_seal(bench) for bench in benches]
            batches += sum(filter(None, await asyncio.gather(*offers, *sealing)))
    await benches[0].sealer.turn()
    held = await one(pools[0], "SELECT count(*) FROM audit_log")
    assert held == sum(len(writer.rows) for writer in writers) == rounds * 45
    assert await one(pools[0], "SELECT count(*) FROM audit_conflict") == 0
    assert await one(pools[0], "SELECT max(number) - count(*) FROM audit_checkpoint") == 0
    checked = await PostgresVerifier(pools[0], timeout_seconds=30.0).verify(full=True)
    assert (list(checked.findings), checked.unsealed, checked.rows) == ([], 0, rounds * 45)
    figures.set(batches=batches, rows=held, checkpoints=checked.checkpoint)
    for pool in pools:
        await close_pool(pool, timeout_seconds=5.0)


async def _offer(pool: Any, writer: ChainWriter, draw: random.Random) -> int:
    sink, batches = PostgresSink(pool, timeout_seconds=30.0), 0
    while (head := await sink.head(writer.chain_id)).seq < len(writer.rows):
        begin = max(0, head.seq - draw.randrange(4))
        batch = writer.rows[begin : head.seq + 1 + draw.randrange(20)]
        try:
            report = await sink.store(batch, node=writer.node)
        except ChainGap:
            continue
        assert report.conflicts == ()
        batches += 1
    return batches


async def _seal(bench: TrailBench) -> None:
    for _ in range(4):
        await bench.sealer.turn()


async def steps(url: str, order: list[int], writers: list[list[Any]]) -> list[Any]:
    """Two transactions on one chain, each a begin, an ingest and a commit, interleaved in the given order."""
    connections = [await asyncpg.connect(url) for _ in writers]
    waiting: list[asyncio.Task[Any] | None] = [None] * len(writers)
    results: list[Any] = []
    try:
        for which in order:
            step = writers[which].pop(0)
            before = waiting[which]

            async def go(step: Any = step, before: Any = before, connection: Any = connections[which]) -> Any:
                if before is not None:
                    await before
                return await step(connection)

            waiting[which] = asyncio.create_task(go())
            await asyncio.sleep(0)
        results = [await task for task in waiting if task is not None]
    finally:
        for connection in connections:
            await connection.close()
    return results


def interleavings(first: int, second: int) -> list[list[int]]:
    """Every order of `first` steps of one and `second` of the other."""
    if first == 0 or second == 0:
        return [[0] * first + [1] * second]
    return [[0, *rest] for rest in interleavings(first - 1, second)] + [
        [1, *rest] for rest in interleavings(first, second - 1)
    ]


EMPTY = "SELECT * FROM jobtrail_ingest($1, $2" + ", '{}'" * 23 + ")"


async def test_every_interleaving_of_two_transactions_on_one_chain_ends(database: str, figures: Figures) -> None:
    """Both lock the chain, then move it; whoever is second sees what the first left."""
    orders = interleavings(3, 3)
    for order in orders:
        writer = ChainWriter()
        writer.begin()

        async def begin(connection: Any) -> None:
            await connection.execute("BEGIN")

        async def lock(connection: Any, writer: ChainWriter = writer) -> Any:
            return await connection.fetchrow(EMPTY, writer.chain_id, writer.node)

        async def commit(connection: Any) -> None:
            await connection.execute("COMMIT")

        async with asyncio.timeout(60):
            await steps(database, order, [[begin, lock, commit], [begin, lock, commit]])
    figures.set(permutations=len(orders))
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT count(*) FROM audit_chain WHERE head_seq = 0") == len(orders)
    await connection.close()
