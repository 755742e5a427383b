"""The daemon's parts, made and wired by plain calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.procfs import read_boot_id
from jobtrail.adapters.spool import SqliteSpool
from jobtrail.adapters.tally_file import TallyFile
from jobtrail.adapters.telemetry import Telemetry
from jobtrail.composition.audit_role import make_heartbeat, make_own_events, make_witness
from jobtrail.composition.gpu_role import GpuParts, make_gpu_parts
from jobtrail.composition.node_role import make_collector, make_runaways, make_sampler
from jobtrail.composition.server_role import make_server_parts
from jobtrail.composition.slurm_role import SlurmSources
from jobtrail.composition.storage import Sinks, Store
from jobtrail.config import Config
from jobtrail.core.access.retention import SecurityRetention
from jobtrail.core.access.security import SecurityLog
from jobtrail.core.benchmarks.settler import BenchmarkSettler
from jobtrail.core.clocks.store import StoreClock
from jobtrail.core.clocks.watch import ClockWatch
from jobtrail.core.forwarder import Forwarder
from jobtrail.core.housekeeping import Housekeeper
from jobtrail.core.intake import Intake
from jobtrail.core.ports import SampleRow
from jobtrail.core.runs.board import Board
from jobtrail.core.runs.collector import Collector
from jobtrail.core.runs.runaways import Runaways
from jobtrail.core.runs.sampler import Sampler, Watched
from jobtrail.core.sample_buffer import SampleBuffer
from jobtrail.core.slurm.admin_comments import Commenter
from jobtrail.core.slurm.nodes import NodeWatcher
from jobtrail.core.slurm.reconciler import Reconciler
from jobtrail.core.trail.gaps import GapRecords
from jobtrail.core.trail.heartbeat import Heartbeat
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.core.trail.sealer import Sealer
from jobtrail.core.trail.verifying import Verifying
from jobtrail.core.waiting import Backoff

DAY_US = 86_400_000_000
TALLY_FILE = "shed.tally"


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
    settler: BenchmarkSettler | None
    commenter: Commenter | None
    security: SecurityLog
    auditors: tuple[Sealer | Verifying | SecurityRetention | Heartbeat | GapRecords | ClockWatch, ...]
    store_clock: StoreClock | None  # where events are forwarded
    sinks: Sinks | None  # the database, or the servers
    store: Store | None  # the database


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
    sinks: Sinks | None,
    slurm: SlurmSources,
) -> Parts:
    """All parts, each made where its role is described, and handed to those that need it."""
    tell = telemetry.observe
    store = sinks if isinstance(sinks, Store) else None
    telemetry.watch_spool(spool.status)
    telemetry.forwards_to(config.forward_target)
    board = Board(max_jobs=config.metrics.max_jobs, max_benchmarks=config.benchmarks.max_series)
    cgroup = CgroupReader(Path(config.sampling.cgroup_root), node=config.node_name, clock_us=clock.time_us)
    buffer = _sample_buffer(config, sinks, clock, telemetry)

    async def report(watched: Watched, final: bool) -> bool:  # noqa: FBT001 - the shape of sampler.Report
        return await collector.report(watched, final)

    sampler = make_sampler(
        config, cgroup=cgroup, board=board, add_row=buffer.add, report=report, clock=clock, tell=tell
    )
    intake = Intake(spool, sampler, tell)
    collector = make_collector(config, intake=intake, clock=clock, tell=tell)
    over_runs = sinks.over_runs if sinks else None
    own_events = make_own_events(config, intake=intake, clock=clock)
    store_clock = StoreClock(sinks.events, clock=clock, tell=tell) if sinks else None
    server = make_server_parts(
        config, store, slurm, board=board, intake=intake, last_cluster=spool.last_cluster, clock=clock, tell=tell
    )
    gpus = _gpu_parts(config, sinks, sampler, board, clock, telemetry)
    gpu_buffers = () if gpus is None else (gpus.buffer, gpus.energy_buffer)
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
            config, spool=spool, intake=intake, sampler=sampler, clock=clock, tell=tell, over_runs=over_runs
        ),
        buffer=buffer,
        gpus=gpus,
        forwarder=_forwarder(config, clock, telemetry, spool, store_clock, own_events),
        housekeeper=server.housekeeper,
        slurm=slurm,
        reconciler=server.reconciler,
        node_watcher=server.node_watcher,
        settler=server.settler,
        commenter=server.commenter,
        security=SecurityLog(sinks.security if sinks else None, node=config.node_name, clock=clock, tell=tell),
        auditors=(
            *server.auditors,
            _gap_records(config, spool, own_events, clock, telemetry, (buffer, *gpu_buffers)),
            _clock_watch(own_events, clock, telemetry),
            make_heartbeat(config, spool=spool, events=own_events, tell=tell),
        ),
        store_clock=store_clock,
        sinks=sinks,
        store=store,
    )


def _sample_buffer(
    config: Config, sinks: Sinks | None, clock: SystemClock, telemetry: Telemetry
) -> SampleBuffer[SampleRow]:
    return SampleBuffer(
        sinks.samples if sinks else None,
        clock=clock,
        tell=telemetry.observe,
        backoff=Backoff(),
        max_rows=config.sampling.buffer_rows,
        series_of=lambda row: (row.cluster, row.job_id, row.node),
    )


def _gpu_parts(
    config: Config, sinks: Sinks | None, sampler: Sampler, board: Board, clock: SystemClock, telemetry: Telemetry
) -> GpuParts | None:
    return make_gpu_parts(
        config,
        sampler=sampler,
        board=board,
        sink=sinks.gpu_samples if sinks else None,
        energy_sink=sinks.energy_samples if sinks else None,
        clock=clock,
        tell=telemetry.observe,
    )


def _gap_records(
    config: Config,
    spool: SqliteSpool,
    events: OwnEvents,
    clock: SystemClock,
    telemetry: Telemetry,
    buffers: Iterable[SampleBuffer[Any]],
) -> GapRecords:
    tally = TallyFile(Path(config.spool.directory) / TALLY_FILE, clock_us=clock.time_us)
    ask = [buffer.tell_shed for buffer in buffers]
    records = GapRecords(spool, events, tally, clock=clock, tell=telemetry.observe, ask=ask)
    telemetry.tell_too(records.observe)
    return records


def _clock_watch(events: OwnEvents, clock: SystemClock, telemetry: Telemetry) -> ClockWatch:
    watch = ClockWatch(events, clock=clock, tell=telemetry.observe)
    telemetry.tell_too(watch.observe)
    return watch


def _forwarder(
    config: Config,
    clock: SystemClock,
    telemetry: Telemetry,
    spool: SqliteSpool,
    sink: StoreClock | None,
    own_events: OwnEvents,
) -> Forwarder | None:
    if sink is None:
        return None
    witness = make_witness(config, spool=spool, events=own_events, tell=telemetry.observe)
    return Forwarder(
        spool,
        sink,
        node=config.node_name,
        clock=clock,
        tell=telemetry.observe,
        backoff=Backoff(),
        witness=witness.take,
    )
