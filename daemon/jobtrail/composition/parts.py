"""The daemon's parts, made and wired by plain calls."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.procfs import NodeProc, ProcessTreeReader, read_boot_id
from jobtrail.adapters.spool import SqliteSpool
from jobtrail.adapters.telemetry import Telemetry
from jobtrail.composition.gpu_role import GpuParts, make_gpu_parts
from jobtrail.composition.node_role import make_runaways, user_name
from jobtrail.composition.slurm_role import SlurmSources, make_cluster_of, make_node_watcher, make_reconciler
from jobtrail.composition.storage import Store
from jobtrail.config import Config
from jobtrail.core.board import Board
from jobtrail.core.collector import Collector
from jobtrail.core.forwarder import Forwarder
from jobtrail.core.housekeeping import Housekeeper
from jobtrail.core.intake import Intake
from jobtrail.core.nodes import NodeWatcher
from jobtrail.core.ports import SampleRow, UsageSource
from jobtrail.core.reconciler import Reconciler
from jobtrail.core.runaways import Runaways
from jobtrail.core.sample_buffer import SampleBuffer
from jobtrail.core.sampler import Rhythm, Sampler, Watched
from jobtrail.core.waiting import Backoff
from jobtrail.domain.samples import Target

DAY_US = 86_400_000_000


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The running parts, wired."""

    config: Config
    clock: SystemClock
    telemetry: Telemetry
    spool: SqliteSpool
    board: Board
    cgroup: CgroupReader
    sampler: Sampler
    collector: Collector
    intake: Intake
    runaways: Runaways
    buffer: SampleBuffer[SampleRow]
    gpus: GpuParts | None
    forwarder: Forwarder | None
    housekeeper: Housekeeper | None
    slurm: SlurmSources
    reconciler: Reconciler | None
    node_watcher: NodeWatcher | None
    store: Store | None


@asynccontextmanager
async def open_spool(config: Config, clock: SystemClock) -> AsyncIterator[SqliteSpool]:
    async with SqliteSpool.opened(
        Path(config.spool.directory),
        node=config.node_name,
        max_bytes=config.spool.max_bytes,
        keep_forwarded_us=int(config.spool.keep_forwarded_days * DAY_US),
        clock=clock,
        cluster=config.cluster,
        boot_id=read_boot_id(Path(config.sampling.proc_root)),
    ) as spool:
        yield spool


def wire(
    config: Config,
    clock: SystemClock,
    telemetry: Telemetry,
    spool: SqliteSpool,
    store: Store | None,
    slurm: SlurmSources,
) -> Parts:
    board = Board(max_jobs=config.metrics.max_jobs)
    cgroup = CgroupReader(Path(config.sampling.cgroup_root), node=config.node_name, clock_us=clock.time_us)
    processes = ProcessTreeReader(Path(config.sampling.proc_root), clock_us=clock.time_us)
    tell = telemetry.observe
    buffer = SampleBuffer(store.samples if store else None, clock=clock, tell=tell, backoff=Backoff())

    def source_for(target: Target) -> UsageSource:
        return processes if target.whereabouts.root_pid is not None else cgroup

    async def report(watched: Watched, final: bool) -> bool:  # noqa: FBT001 - the shape of sampler.Report
        return await collector.report(watched, final)

    sampler = Sampler(
        source_for=source_for,
        node_source=NodeProc(Path(config.sampling.proc_root), clock_us=clock.time_us),
        board=board,
        add_row=buffer.add,
        report=report,
        clock=clock,
        tell=tell,
        rhythm=Rhythm(
            first_seconds=config.sampling.first_seconds,
            interval_seconds=config.sampling.interval_seconds,
            checkpoint_seconds=config.sampling.checkpoint_seconds,
        ),
    )
    sampler.trust_parents(complete=config.scheduler != "slurm")  # see _adopt
    intake = Intake(spool, sampler, tell)
    reconciler, node_watcher = None, None
    if store is not None:
        cluster_of = make_cluster_of(config, slurm, runs=store.runs, last_cluster=spool.last_cluster, clock=clock)
        leads = store.leadership_of(cluster_of).held  # of all daemons that may ask Slurm, one does
        reconciler = make_reconciler(
            config,
            slurm,
            store=store.runs,
            board=board,
            intake=intake,
            cluster_of=cluster_of,
            leads=leads,
            clock=clock,
            tell=tell,
        )
        node_watcher = make_node_watcher(
            config, slurm, store=store, board=board, cluster_of=cluster_of, leads=leads, clock=clock, tell=tell
        )
    collector = Collector(
        intake=intake,
        clock=clock,
        tell=tell,
        new_event_id=lambda: str(uuid.uuid4()),
        user_name_of=user_name,
        node=config.node_name,
    )
    return Parts(
        config=config,
        clock=clock,
        telemetry=telemetry,
        spool=spool,
        board=board,
        cgroup=cgroup,
        sampler=sampler,
        collector=collector,
        intake=intake,
        runaways=make_runaways(
            config,
            spool=spool,
            intake=intake,
            sampler=sampler,
            clock=clock,
            tell=telemetry.observe,
            over_runs=store.over_runs if store else None,
        ),
        buffer=buffer,
        gpus=make_gpu_parts(
            config,
            sampler=sampler,
            board=board,
            sink=store.gpu_samples if store else None,
            energy_sink=store.energy_samples if store else None,
            clock=clock,
            tell=tell,
        ),
        forwarder=_forwarder(config, clock, telemetry, spool, store),
        housekeeper=_housekeeper(config, clock, telemetry, board, store, reconciler),
        slurm=slurm,
        reconciler=reconciler,
        node_watcher=node_watcher,
        store=store,
    )


def _forwarder(
    config: Config, clock: SystemClock, telemetry: Telemetry, spool: SqliteSpool, store: Store | None
) -> Forwarder | None:
    if store is None:
        return None
    return Forwarder(spool, store.events, node=config.node_name, clock=clock, tell=telemetry.observe, backoff=Backoff())


def _housekeeper(
    config: Config,
    clock: SystemClock,
    telemetry: Telemetry,
    board: Board,
    store: Store | None,
    reconciler: Reconciler | None,
) -> Housekeeper | None:
    if store is None or "server" not in config.roles:
        return None
    return Housekeeper(
        store.central,
        board=board,
        clock=clock,
        tell=telemetry.observe,
        retention_days=config.sampling.retention_days,
        pending_jobs=lambda: None if reconciler is None else reconciler.pending_jobs,
    )
