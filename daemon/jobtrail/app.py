"""The composition root: opens everything in order, wires it by plain calls, waits for the stop, closes in reverse."""

from __future__ import annotations

import asyncio
import pwd
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from jobtrail.adapters import systemd
from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.exposition import Exposition
from jobtrail.adapters.http import HttpApi, HttpSettings
from jobtrail.adapters.incoming import IncomingDirectory
from jobtrail.adapters.procfs import NodeProc, ProcessTreeReader, read_boot_id
from jobtrail.adapters.slurm_env import decode_poke, hook_decoder
from jobtrail.adapters.spool import SqliteSpool
from jobtrail.adapters.telemetry import Telemetry
from jobtrail.config import Config
from jobtrail.core.board import Board
from jobtrail.core.collector import Collector
from jobtrail.core.forwarder import Forwarder
from jobtrail.core.housekeeping import Housekeeper
from jobtrail.core.intake import Intake
from jobtrail.core.nodes import NodeWatcher
from jobtrail.core.pokes import Pokes
from jobtrail.core.ports import Health, UsageSource
from jobtrail.core.reconciler import Reconciler
from jobtrail.core.runaways import Runaways
from jobtrail.core.sample_buffer import SampleBuffer
from jobtrail.core.sampler import Rhythm, Sampler, Watched
from jobtrail.core.waiting import Backoff, wait_for_any
from jobtrail.domain.errors import JobtrailError
from jobtrail.domain.events import request_digest
from jobtrail.domain.samples import Target
from jobtrail.node_role import make_runaways, user_name
from jobtrail.slurm_role import SlurmSources, make_node_watcher, make_reconciler, slurm_sources
from jobtrail.storage import Store, open_store

DAY_US = 86_400_000_000
FINAL_FORWARD_SECONDS = 3.0


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
    buffer: SampleBuffer
    forwarder: Forwarder | None
    housekeeper: Housekeeper | None
    slurm: SlurmSources
    reconciler: Reconciler | None
    node_watcher: NodeWatcher | None
    store: Store | None


async def serve(config: Config, stop: asyncio.Event, *, ready: asyncio.Event | None = None) -> None:
    """Run the daemon until `stop`, or until a part of it fails.

    Raises ConfigError when a resource named in the settings cannot be used, SpoolBroken when durability can no longer
    be promised; any other failure of a background task is raised as it is.
    """
    clock, telemetry = SystemClock(), Telemetry()
    async with (
        _spool(config, clock) as spool,
        open_store(config, telemetry.observe) as store,
        slurm_sources(config, clock) as slurm,
    ):
        parts = _wire(config, clock, telemetry, spool, store, slurm)
        try:
            await _run(parts, stop, ready)
        except BaseExceptionGroup as failures:
            ours, others = failures.split(JobtrailError)
            if ours is None or others is not None:
                raise
            raise _first(ours) from failures
        await _leave(parts)
        parts.telemetry.note("stopped")


async def _run(parts: Parts, stop: asyncio.Event, ready: asyncio.Event | None) -> None:
    incoming, halt = _incoming(parts), asyncio.Event()
    await parts.collector.resume(parts.spool, parts.sampler, but_not=await parts.runaways.close_rebooted())
    async with asyncio.TaskGroup() as tasks:
        try:
            # What hooks left comes first: a posted prolog must not overtake the file of the run before it.
            await incoming.take_all()
            async with _http(parts).serving() as addresses:
                _start_loops(tasks, parts, incoming, halt)
                if parts.config.scheduler == "slurm" and "node" in parts.config.roles:
                    tasks.create_task(_adopt(parts, halt))
                parts.telemetry.started(socket=addresses.socket, http=addresses.url)
                for notice in (*parts.spool.notices, *parts.slurm.notices):
                    parts.telemetry.warn(notice)
                for remark in parts.spool.remarks:
                    parts.telemetry.note(remark)
                systemd.notify("READY=1")
                if ready is not None:
                    ready.set()
                await wait_for_any(stop.wait(), _broken(parts))
                systemd.notify("STOPPING=1")
        finally:
            halt.set()  # after the sockets are closed, so that the usage of the last ended job is still settled


def _start_loops(tasks: asyncio.TaskGroup, parts: Parts, incoming: IncomingDirectory, stop: asyncio.Event) -> None:
    """Start the background tasks: each ends with `stop`, and the failure of one ends the daemon."""
    loops = [parts.sampler.run(stop), parts.buffer.run(stop), incoming.run(stop), parts.runaways.run(stop)]
    if parts.forwarder is not None:
        loops.append(parts.forwarder.run(stop))
    if parts.housekeeper is not None:
        loops.append(parts.housekeeper.run(stop))
    if parts.reconciler is not None:
        loops.append(parts.reconciler.run(stop))
    if parts.node_watcher is not None:
        loops.append(parts.node_watcher.run(stop))
    if (seconds := systemd.watchdog_interval()) is not None:
        loops.append(_feed_watchdog(seconds / 2, stop))
    for loop in loops:
        tasks.create_task(loop)


async def _feed_watchdog(seconds: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        systemd.notify("WATCHDOG=1")
        await wait_for_any(stop.wait(), timeout_seconds=seconds)


async def _broken(parts: Parts) -> None:
    """Raise the spool's failure when it has one: the daemon stops and systemd starts it afresh."""
    raise await parts.spool.failure()


async def _adopt(parts: Parts, stop: asyncio.Event) -> None:
    """Take up Slurm jobs that run without any event about them.

    Their cluster's name is that of the settings, or what a hook last said; on a node where no hook ever spoke, adoption
    waits for the first one.
    """
    warned = False
    while not stop.is_set():
        found = await asyncio.to_thread(parts.cgroup.scan)
        cluster = parts.config.cluster or await parts.spool.last_cluster()
        if cluster or not found:
            known = frozenset(run.target.job_id for run in await parts.spool.open_runs())
            await parts.collector.adopt(found, known, cluster or "")
            parts.sampler.trust_parents()
            return
        if not warned:
            parts.telemetry.warn(
                "jobs run here that no hook announced; waiting to learn the cluster's name", jobs=len(found)
            )
            warned = True
        await wait_for_any(stop.wait(), parts.spool.wait_beyond(parts.spool.status().head_seq))


async def _leave(parts: Parts) -> None:
    """A last try to hand over what is left; what stays behind is sent after the next start."""
    with suppress(JobtrailError, TimeoutError):
        async with asyncio.timeout(FINAL_FORWARD_SECONDS):
            await parts.buffer.flush()
    with suppress(JobtrailError, TimeoutError):
        async with asyncio.timeout(FINAL_FORWARD_SECONDS):
            if parts.forwarder is not None:
                await parts.forwarder.drain()


def _first(failures: BaseExceptionGroup[JobtrailError]) -> JobtrailError:
    for failure in failures.exceptions:
        return failure if isinstance(failure, JobtrailError) else _first(failure)
    raise AssertionError("an exception group is never empty")


@asynccontextmanager
async def _spool(config: Config, clock: SystemClock) -> AsyncIterator[SqliteSpool]:
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


def _wire(
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
    reconciler = (
        None
        if store is None
        else make_reconciler(
            config,
            slurm,
            store=store.runs,
            board=board,
            intake=intake,
            last_cluster=spool.last_cluster,
            clock=clock,
            tell=tell,
        )
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
            config, spool=spool, intake=intake, sampler=sampler, clock=clock, tell=telemetry.observe
        ),
        buffer=buffer,
        forwarder=_forwarder(config, clock, telemetry, spool, store),
        housekeeper=_housekeeper(config, clock, telemetry, board, store, reconciler),
        slurm=slurm,
        reconciler=reconciler,
        node_watcher=(
            None
            if store is None
            else make_node_watcher(
                config, slurm, store=store, board=board, last_cluster=spool.last_cluster, clock=clock, tell=tell
            )
        ),
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


def _incoming(parts: Parts) -> IncomingDirectory:
    """What hooks left in the spool directory comes in like what they post."""
    decode = hook_decoder(parts.config.cluster, own_node=parts.config.node_name)

    async def take(hook: str, body: bytes, *, event_id: str, time_us: int, time_text: str) -> None:
        event = decode(hook, body, event_id=event_id, time_us=time_us)
        await parts.intake.accept(event, request_digest(hook, time_text, body))

    return IncomingDirectory(
        Path(parts.config.spool.directory),
        take=take,
        tell=parts.telemetry.observe,
        trusted_uids=frozenset(_uid_of(parts.config.http.slurm_user)),
    )


def _http(parts: Parts) -> HttpApi:
    config, clock = parts.config, parts.clock
    page = Exposition(parts.board, parts.telemetry.render, node=config.node_name, clock=clock)
    return HttpApi(
        intake=parts.intake,
        decode_hook=hook_decoder(config.cluster, own_node=config.node_name),
        metrics=page.render,
        scraped=lambda: parts.board.scraped(clock.monotonic()),
        health=lambda: _health(parts),
        owner_of_run=parts.sampler.owner_of,
        pokes=Pokes(parts.sampler, clock),
        decode_poke=decode_poke,
        jobs=parts.store.asked_jobs if parts.store else None,
        nodes=parts.store.asked_nodes if parts.store else None,
        tell=parts.telemetry.observe,
        clock=clock,
        settings=HttpSettings(
            host=config.http.host,
            port=config.http.port,
            socket=config.http.socket,
            poke_socket=config.poke_socket,
            hook_token_file=config.slurm.hook_token_file,
            socket_group=config.http.socket_group,
            trusted_uids=frozenset(_uid_of(config.http.slurm_user)),
            local_scheduler=config.scheduler == "local",
            node=config.node_name,
            cluster=config.cluster,
            local_cluster=config.local_cluster,
            proc_root=config.sampling.proc_root,
            cgroup_root=config.sampling.cgroup_root,
            max_body_bytes=config.http.max_body_bytes,
            header_timeout_seconds=config.http.header_timeout_seconds,
            body_timeout_seconds=config.http.body_timeout_seconds,
            max_connections=config.http.max_connections,
        ),
    )


def _health(parts: Parts) -> Health:
    """Ready means that events are taken and reach the store."""
    spool = parts.spool.status()
    problems: list[str] = []
    if parts.forwarder is None:
        problems.append("no database is configured: events wait in the spool")
    elif (problem := parts.forwarder.last_problem or _chore_problem(parts)) is not None:
        problems.append(f"the database is not reached: {problem}")
    if spool.bytes_used > 0.9 * spool.bytes_limit:
        problems.append(f"the spool is nearly full: {spool.bytes_used} of {spool.bytes_limit} bytes")
    return Health(
        ready=not problems,
        problems=tuple(problems),
        details={
            "spool_depth": spool.depth,
            "spool_bytes": spool.bytes_used,
            "durability": spool.durability,
            "live_jobs": parts.board.live_jobs(),
            "slurm": None if parts.reconciler is None else parts.reconciler.last_problem or "answers",
        },
    )


def _chore_problem(parts: Parts) -> str | None:
    return None if parts.housekeeper is None else parts.housekeeper.last_problem


def _uid_of(user: str) -> tuple[int, ...]:
    """The user id of SlurmUser; none where there is no such user, as on a machine without Slurm."""
    try:
        return (pwd.getpwnam(user).pw_uid,)
    except KeyError:
        return ()
