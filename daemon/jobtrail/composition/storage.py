"""The part of the composition that opens the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from jobtrail.config import Config
from jobtrail.core.facts import Observer
from jobtrail.core.ports import CentralStore, EventSink, JobReader, NodeReader, NodeStore, RunStore, SampleSink

CLOSE_SECONDS = 2.0
READERS = 2  # connections for those who ask over HTTP, apart: however many ask, events are stored


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon keeps its records in."""

    events: EventSink
    samples: SampleSink
    central: CentralStore
    runs: RunStore
    nodes: NodeStore
    asked_nodes: NodeReader
    asked_jobs: JobReader


@asynccontextmanager
async def open_store(config: Config, tell: Observer) -> AsyncIterator[Store | None]:
    """The database, connected when first needed; None when none is configured: events then wait in the spool."""
    if not config.database.url:
        yield None
        return
    from jobtrail.adapters.postgres import (
        PostgresNodes,
        PostgresReader,
        PostgresRuns,
        PostgresSamples,
        PostgresSink,
        PostgresStore,
        close_pool,
        open_pool,
    )

    seconds = config.database.timeout_seconds
    pool = await open_pool(config.database.url, size=config.database.pool_size, timeout_seconds=seconds)
    readers = await open_pool(config.database.url, size=READERS, timeout_seconds=seconds)
    try:
        yield Store(
            events=PostgresSink(pool, timeout_seconds=seconds),
            samples=PostgresSamples(pool, timeout_seconds=seconds, tell=tell),
            central=PostgresStore(pool, timeout_seconds=seconds),
            runs=PostgresRuns(pool, timeout_seconds=seconds),
            nodes=PostgresNodes(pool, timeout_seconds=seconds),
            asked_nodes=PostgresNodes(readers, timeout_seconds=seconds),
            asked_jobs=PostgresReader(readers, timeout_seconds=seconds),
        )
    finally:
        await close_pool(readers, timeout_seconds=CLOSE_SECONDS)
        await close_pool(pool, timeout_seconds=CLOSE_SECONDS)
