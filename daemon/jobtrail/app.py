"""The composition root: opens everything in order, wires it by plain calls, waits for the stop, closes in reverse."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress

from jobtrail.adapters import systemd
from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.incoming import IncomingDirectory
from jobtrail.adapters.telemetry import Telemetry
from jobtrail.composition.parts import Parts, open_spool, wire
from jobtrail.composition.slurm_role import slurm_sources
from jobtrail.composition.storage import open_store
from jobtrail.composition.surface import make_drop, make_http, make_incoming
from jobtrail.config import Config
from jobtrail.config_link import left_open
from jobtrail.core.runs.adoption import Adoption
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import JobtrailError

FINAL_FORWARD_SECONDS = 3.0


async def serve(config: Config, stop: asyncio.Event, *, ready: asyncio.Event | None = None) -> None:
    """Run the daemon until `stop`, or until a part of it fails.

    Raises ConfigError when a resource named in the settings cannot be used, SpoolBroken when durability can no longer
    be promised; any other failure of a background task is raised as it is.
    """
    with systemd.inherited_sockets() as inherited:
        await _serve(config, inherited, stop, ready)


async def _serve(
    config: Config, inherited: Mapping[str, socket.socket], stop: asyncio.Event, ready: asyncio.Event | None
) -> None:
    clock, telemetry = SystemClock(), Telemetry()
    async with (
        open_spool(config, clock) as spool,
        open_store(config, telemetry.observe) as store,
        slurm_sources(config, clock) as slurm,
    ):
        parts = wire(config, clock, telemetry, spool, store, slurm)
        try:
            await _run(parts, inherited, stop, ready)
        except BaseExceptionGroup as failures:
            ours, others = failures.split(JobtrailError)
            if ours is None or others is not None:
                raise
            raise _first(ours) from failures
        await _leave(parts)
        parts.telemetry.note("stopped")


def _left_open(config: Config) -> list[str]:
    """What a server that takes from nodes holds against none of them."""
    told = left_open(config.link) if config.takes_from_nodes else {}
    return [f"{setting} is empty: {meaning}; see docs/security.md" for setting, meaning in told.items()]


async def _run(
    parts: Parts, inherited: Mapping[str, socket.socket], stop: asyncio.Event, ready: asyncio.Event | None
) -> None:
    incoming, halt = make_incoming(parts), asyncio.Event()
    await parts.collector.resume(parts.spool, parts.sampler, but_not=await parts.runaways.close_rebooted())
    async with asyncio.TaskGroup() as tasks:
        try:
            # What hooks left comes first: a posted prolog must not overtake the file of the run before it.
            await incoming.take_all()
            if (adoption := _adoption(parts)) is not None:
                await adoption.begin()
            async with make_http(parts, inherited).serving() as addresses:
                _start_loops(tasks, parts, incoming, halt)
                if adoption is not None:
                    tasks.create_task(adoption.run(halt))
                parts.telemetry.started(socket=addresses.socket, http=addresses.url)
                for notice in (*parts.spool.notices, *parts.slurm.notices):
                    parts.telemetry.warn(notice)
                for remark in (*parts.spool.remarks, *_left_open(parts.config)):
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
    loops.append(parts.security.run(stop))
    if (drop := make_drop(parts)) is not None:
        loops.append(drop.run(stop))
    if parts.gpus is not None:
        loops += [parts.gpus.watch.run(stop), parts.gpus.buffer.run(stop), parts.gpus.energy_buffer.run(stop)]
    if parts.forwarder is not None:
        loops.append(parts.forwarder.run(stop))
    if parts.housekeeper is not None:
        loops.append(parts.housekeeper.run(stop))
    if parts.reconciler is not None:
        loops.append(parts.reconciler.run(stop))
    if parts.node_watcher is not None:
        loops.append(parts.node_watcher.run(stop))
    if parts.settler is not None:
        loops.append(parts.settler.run(stop))
    if parts.commenter is not None:
        loops.append(parts.commenter.run(stop))
    loops += [auditor.run(stop) for auditor in parts.auditors]
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


def _adoption(parts: Parts) -> Adoption | None:
    """What takes up Slurm's jobs that run here; their cluster's name is that of the settings, or what a hook said."""
    if parts.config.scheduler != "slurm" or "node" not in parts.config.roles:
        return None

    async def cluster_of() -> str | None:
        return parts.config.cluster or await parts.spool.last_cluster()

    def warn(jobs: int) -> None:
        parts.telemetry.warn("jobs run here that no hook announced; waiting to learn the cluster's name", jobs=jobs)

    return Adoption(
        parts.spool,
        parts.collector,
        scan=lambda: asyncio.to_thread(parts.cgroup.scan),
        cluster_of=cluster_of,
        unnamed=warn,
        adopted=parts.sampler.trust_parents,
    )


async def _leave(parts: Parts) -> None:
    """A last try to hand over what is left; what stays behind is sent after the next start."""
    with suppress(JobtrailError, TimeoutError):
        async with asyncio.timeout(FINAL_FORWARD_SECONDS):
            await parts.buffer.flush()
            if parts.gpus is not None:
                await parts.gpus.buffer.flush()
                await parts.gpus.energy_buffer.flush()
    with suppress(JobtrailError, TimeoutError):
        async with asyncio.timeout(FINAL_FORWARD_SECONDS):
            if parts.forwarder is not None:
                await parts.forwarder.drain()


def _first(failures: BaseExceptionGroup[JobtrailError]) -> JobtrailError:
    for failure in failures.exceptions:
        return failure if isinstance(failure, JobtrailError) else _first(failure)
    raise AssertionError("an exception group is never empty")
