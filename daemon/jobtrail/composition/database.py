"""The part of the composition that opens PostgreSQL; loaded where a daemon has a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
from jobtrail.adapters.signing import FileSigner, PublicKeys
from jobtrail.composition.storage import ClusterOf, Store
from jobtrail.config import Config
from jobtrail.core.facts import Observer
from jobtrail.core.ports import Leadership
from jobtrail.core.query_ports import Archive

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

CLOSE_SECONDS = 2.0
READERS = 2  # connections for those who ask over HTTP, apart: however many ask, events are stored


@asynccontextmanager
async def open_database(config: Config, tell: Observer) -> AsyncIterator[Store]:
    """Its pools, which connect when first needed, and all that asks them."""
    url, seconds = config.database.url, config.database.timeout_seconds
    async with AsyncExitStack() as stack:
        pool = await open_pool(url, size=config.database.pool_size, timeout_seconds=seconds)
        stack.push_async_callback(close_pool, pool, timeout_seconds=CLOSE_SECONDS)
        readers = await open_pool(url, size=READERS, timeout_seconds=seconds)
        stack.push_async_callback(close_pool, readers, timeout_seconds=CLOSE_SECONDS)

        def leadership_of(cluster_of: ClusterOf) -> Leadership:
            leadership = PostgresLeadership(url, cluster_of=cluster_of, timeout_seconds=seconds)
            stack.push_async_callback(leadership.release)
            return leadership

        yield _store(config, pool, readers, tell, leadership_of)


def _store(
    config: Config,
    pool: Pool,
    readers: Pool,
    tell: Observer,
    leadership_of: Callable[[ClusterOf], Leadership],
) -> Store:
    """What stores, on `pool`; what is asked over HTTP, on `readers`."""
    seconds, most_errors = config.database.timeout_seconds, config.benchmarks.max_error_ratio
    samples = PostgresSamples(pool, timeout_seconds=seconds, tell=tell)
    return Store(
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
        archive=_archive(readers, seconds),
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


def _archive(readers: Pool, seconds: float) -> Archive:
    return Archive(
        jobs=PostgresReader(readers, timeout_seconds=seconds),
        samples=PostgresSampleReader(readers, timeout_seconds=seconds),
        trail=PostgresTrailReader(readers, timeout_seconds=seconds),
        analytics=PostgresAnalytics(readers, timeout_seconds=seconds),
    )


def _keys(config: Config) -> PublicKeys | None:
    """The keys whose signatures of checkpoints are believed; None where none is configured."""
    audit = config.audit
    if audit.public_key_file:
        return PublicKeys.load([Path(audit.public_key_file)])
    if audit.signing_key_file:
        return PublicKeys.of(FileSigner.load(Path(audit.signing_key_file)))
    return None
