"""The part of the composition that opens the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from jobtrail.adapters.signing import FileSigner, PublicKeys
from jobtrail.config import Config
from jobtrail.core.audit_ports import SealStore, Verifier
from jobtrail.core.benchmark_ports import BenchmarkReader, BenchmarkStore
from jobtrail.core.comment_ports import SettledRuns
from jobtrail.core.facts import Observer
from jobtrail.core.gpu_ports import EnergySampleSink, GpuSampleSink
from jobtrail.core.manual_ports import PostedSampleSink
from jobtrail.core.node_link import ChainOwners, JobParts
from jobtrail.core.over_runs import OverRuns
from jobtrail.core.ports import CentralStore, EventSink, Leadership, NodeStore, RunStore, SampleSink
from jobtrail.core.query_ports import Archive, JobReader, NodeReader
from jobtrail.core.security_ports import NodeTokens, SecurityArchive, SecurityReader, SecurityStore
from jobtrail.core.target_ports import TargetReader

CLOSE_SECONDS = 2.0
ClusterOf = Callable[[], Awaitable[str | None]]
READERS = 2  # connections for those who ask over HTTP, apart: however many ask, events are stored


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
    from jobtrail.adapters.postgres import (
        PostgresAnalytics,
        PostgresBenchmarkReader,
        PostgresBenchmarks,
        PostgresChains,
        PostgresEnergySamples,
        PostgresGpuSamples,
        PostgresJobParts,
        PostgresLeadership,
        PostgresNodes,
        PostgresNodeTokens,
        PostgresOverRuns,
        PostgresReader,
        PostgresRuns,
        PostgresSampleReader,
        PostgresSamples,
        PostgresSeals,
        PostgresSecurity,
        PostgresSettledRuns,
        PostgresSink,
        PostgresStore,
        PostgresTargets,
        PostgresTrailReader,
        PostgresVerifier,
        close_pool,
        open_pool,
    )

    url, seconds = config.database.url, config.database.timeout_seconds
    most_errors = config.benchmarks.max_error_ratio
    async with AsyncExitStack() as stack:
        pool = await open_pool(url, size=config.database.pool_size, timeout_seconds=seconds)
        stack.push_async_callback(close_pool, pool, timeout_seconds=CLOSE_SECONDS)
        readers = await open_pool(url, size=READERS, timeout_seconds=seconds)
        stack.push_async_callback(close_pool, readers, timeout_seconds=CLOSE_SECONDS)

        def leadership_of(cluster_of: ClusterOf) -> Leadership:
            leadership = PostgresLeadership(url, cluster_of=cluster_of, timeout_seconds=seconds)
            stack.push_async_callback(leadership.release)
            return leadership

        samples = PostgresSamples(pool, timeout_seconds=seconds, tell=tell)
        yield Store(
            events=PostgresSink(pool, timeout_seconds=seconds),
            samples=samples,
            posted_samples=samples,
            gpu_samples=PostgresGpuSamples(pool, timeout_seconds=seconds, tell=tell),
            energy_samples=PostgresEnergySamples(pool, timeout_seconds=seconds, tell=tell),
            owners=PostgresChains(pool, timeout_seconds=seconds),
            job_parts=PostgresJobParts(pool, timeout_seconds=seconds),
            central=PostgresStore(pool, timeout_seconds=seconds),
            runs=PostgresRuns(pool, timeout_seconds=seconds),
            settled_runs=PostgresSettledRuns(
                pool, timeout_seconds=seconds, quiet_seconds=config.slurm.admin_comment_seconds
            ),
            over_runs=PostgresOverRuns(pool, timeout_seconds=seconds),
            nodes=PostgresNodes(pool, timeout_seconds=seconds),
            asked_nodes=PostgresNodes(readers, timeout_seconds=seconds),
            asked_targets=PostgresTargets(readers, timeout_seconds=seconds),
            asked_jobs=PostgresReader(readers, timeout_seconds=seconds),
            archive=Archive(
                jobs=PostgresReader(readers, timeout_seconds=seconds),
                samples=PostgresSampleReader(readers, timeout_seconds=seconds),
                trail=PostgresTrailReader(readers, timeout_seconds=seconds),
                analytics=PostgresAnalytics(readers, timeout_seconds=seconds),
            ),
            benchmarks=PostgresBenchmarks(pool, timeout_seconds=seconds, max_error_ratio=most_errors),
            asked_benchmarks=PostgresBenchmarkReader(readers, timeout_seconds=seconds, max_error_ratio=most_errors),
            node_tokens=PostgresNodeTokens(pool, timeout_seconds=seconds),
            security=PostgresSecurity(pool, timeout_seconds=seconds),
            old_security=PostgresSecurity(pool, timeout_seconds=seconds),
            asked_security=PostgresSecurity(readers, timeout_seconds=seconds),
            seals=PostgresSeals(pool, timeout_seconds=seconds),
            verifier=PostgresVerifier(
                pool, timeout_seconds=seconds, keys=_keys(config), accepted=set(map(str, config.audit.accepted_chains))
            ),
            leadership_of=leadership_of,
        )


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


def _keys(config: Config) -> PublicKeys | None:
    """The keys whose signatures of checkpoints are believed; None where none is configured."""
    audit = config.audit
    if audit.public_key_file:
        return PublicKeys.load([Path(audit.public_key_file)])
    if audit.signing_key_file:
        return PublicKeys.of(FileSigner.load(Path(audit.signing_key_file)))
    return None
