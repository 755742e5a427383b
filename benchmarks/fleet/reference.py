"""The reference: the very rows that the fleet stored, inserted plainly into a table of the trail's shape."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from benchmarks.fleet.site import Site

TABLE = (
    "CREATE TABLE fleet_reference (chain_id uuid, seq bigint, event_id uuid, kind text, prev_hash bytea,"
    " commitment bytea, row_hash bytea, payload bytea, salt bytea, PRIMARY KEY (chain_id, seq),"
    " UNIQUE (chain_id, event_id))"
)
ROWS = (
    "SELECT l.chain_id, l.seq, l.event_id, l.kind, l.prev_hash, l.commitment, l.row_hash, p.payload, p.salt"
    " FROM audit_log l JOIN audit_payload p USING (chain_id, seq) JOIN audit_chain c USING (chain_id)"
    " WHERE c.node LIKE 'f%' ORDER BY l.chain_id, l.seq LIMIT 20000"
)
INSERT = (
    "INSERT INTO fleet_reference SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::bytea[],"
    " $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[])"
)


async def reference(site: Site, *, connections: int, seconds: float) -> dict[str, Any]:
    """Rows a second, one and some a transaction, on as many connections as the server has; half of `seconds` each."""
    pool = await asyncpg.create_pool(site.url, min_size=connections, max_size=connections)
    try:
        await pool.execute(TABLE)
        rows = [tuple(row) for row in await pool.fetch(ROWS)]
        found: dict[str, Any] = {"connections": connections}
        for size in (1, 3):
            await pool.execute("TRUNCATE fleet_reference")
            found[f"rows_per_second_{size}_a_transaction"] = round(
                await _insert(pool, rows, size=size, workers=connections, seconds=seconds / 2)
            )
        await pool.execute("DROP TABLE fleet_reference")
    finally:
        await pool.close()
    return found


async def _insert(pool: Any, rows: list[tuple[Any, ...]], *, size: int, workers: int, seconds: float) -> float:
    batches = iter([rows[start : start + size] for start in range(0, len(rows), size)])
    began = time.monotonic()
    done = 0

    async def work() -> None:
        nonlocal done
        async with pool.acquire() as connection:
            for batch in batches:
                await connection.execute(INSERT, *(list(column) for column in zip(*batch, strict=True)))
                done += len(batch)
                if time.monotonic() - began > seconds:
                    return

    await asyncio.gather(*(work() for _ in range(workers)))
    return done / (time.monotonic() - began)
