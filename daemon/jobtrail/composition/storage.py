"""The part of the composition that opens the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from jobtrail.config import Config
from jobtrail.core.access.ports import NodeTokens, SecurityArchive, SecurityReader, SecurityStore
from jobtrail.core.benchmarks.ports import BenchmarkReader, BenchmarkStore
from jobtrail.core.facts import Observer
from jobtrail.core.gpu.ports import EnergySampleSink, GpuSampleSink
from jobtrail.core.link.protocol import ChainOwners, JobParts
from jobtrail.core.manual.ports import PostedSampleSink
from jobtrail.core.ports import CentralStore, EventSink, Leadership, NodeStore, RunStore, SampleSink
from jobtrail.core.query_ports import Archive, JobReader, NodeReader
from jobtrail.core.runs.over_runs import OverRuns
from jobtrail.core.slurm.comment_ports import SettledRuns
from jobtrail.core.target_ports import TargetReader
from jobtrail.core.trail.ports import SealStore, Verifier

ClusterOf = Callable[[], Awaitable[str | None]]


class Sinks(msgspec.Struct, frozen=True, kw_only=True):
    """What the node role needs to hand over its records: a server has it as well as a database."""

    events: EventSink
    samples: SampleSink
    gpu_samples: GpuSampleSink
    energy_samples: EnergySampleSink
    over_runs: OverRuns
    security: SecurityStore


class Store(Sinks, frozen=True, kw_only=True):
    """A database: what the server role needs too, and who asks."""

    owners: ChainOwners
    job_parts: JobParts
    central: CentralStore
    runs: RunStore
    settled_runs: SettledRuns
    nodes: NodeStore
    asked_nodes: NodeReader
    asked_targets: TargetReader
    asked_jobs: JobReader
    archive: Archive
    posted_samples: PostedSampleSink
    benchmarks: BenchmarkStore
    asked_benchmarks: BenchmarkReader
    node_tokens: NodeTokens
    asked_security: SecurityReader
    old_security: SecurityArchive
    seals: SealStore
    verifier: Verifier
    leadership_of: Callable[[ClusterOf], Leadership]  # released when the store is closed


@asynccontextmanager
async def open_store(config: Config, tell: Observer) -> AsyncIterator[Sinks | None]:
    """The database or the servers, connected when first needed; None when none is configured: events then wait in the
    spool. A database is a Store."""
    if not config.database.url:
        yield None
        return
    if config.forwards_to_servers:
        async with _link(config, tell) as sinks:
            yield sinks
        return
    from jobtrail.composition.database import open_database  # what asks PostgreSQL is loaded where it is asked alone

    async with open_database(config, tell) as store:
        yield store


@asynccontextmanager
async def _link(config: Config, tell: Observer) -> AsyncIterator[Sinks]:
    """The servers that this node forwards to."""
    from jobtrail.adapters.server_link import (
        LinkEvents,
        LinkOverRuns,
        LinkSamples,
        LinkSecurityEvents,
        LinkSettings,
        ServerLink,
        server_urls,
    )

    named = config.link
    settings = LinkSettings(
        urls=server_urls(config.database.url),
        node=config.node_name,
        ca_file=named.ca_file,
        certificate_file=named.certificate_file,
        key_file=named.key_file,
        token_file=named.token_file,
        connect_seconds=named.connect_timeout_seconds,
        timeout_seconds=named.timeout_seconds,
    )
    link = ServerLink(settings, tell=tell)
    samples = LinkSamples(link)
    try:
        yield Sinks(
            events=LinkEvents(link),
            samples=samples,
            gpu_samples=samples,
            energy_samples=samples,
            over_runs=LinkOverRuns(link),
            security=LinkSecurityEvents(link),
        )
    finally:
        await link.close()
