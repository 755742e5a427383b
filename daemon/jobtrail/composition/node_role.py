"""The part of the composition that knows this node: its boot, its users, what became of its runs."""

from __future__ import annotations

import pwd
import uuid
from collections.abc import Callable
from pathlib import Path

from jobtrail.adapters.cgroup import CgroupReader, StepFinder
from jobtrail.adapters.procfs import NodeProc, ProcessTreeReader, read_boot_id, read_boot_time_us
from jobtrail.config import Config
from jobtrail.core.facts import Observer
from jobtrail.core.ports import Clock, EventIntake, EventSpool, SampleRow, UsageSource
from jobtrail.core.runs.board import Board
from jobtrail.core.runs.collector import Collector
from jobtrail.core.runs.over_runs import OverRuns
from jobtrail.core.runs.runaways import Boot, Graces, Runaways
from jobtrail.core.runs.sampler import Report, Rhythm, Sampler
from jobtrail.domain.samples import Target


def make_sampler(
    config: Config,
    *,
    cgroup: CgroupReader,
    board: Board,
    add_row: Callable[[SampleRow], None],
    report: Report,
    clock: Clock,
    tell: Observer,
) -> Sampler:
    """What measures jobs: those of Slurm by their cgroup, those that name a process by that and its descendants."""
    proc = Path(config.sampling.proc_root)
    processes = ProcessTreeReader(proc, clock_us=clock.time_us)

    def source_for(target: Target) -> UsageSource:
        return processes if target.whereabouts.root_pid is not None else cgroup

    sampler = Sampler(
        source_for=source_for,
        node_source=NodeProc(proc, clock_us=clock.time_us),
        board=board,
        add_row=add_row,
        report=report,
        clock=clock,
        tell=tell,
        rhythm=Rhythm(
            first_seconds=config.sampling.first_seconds,
            interval_seconds=config.sampling.interval_seconds,
            checkpoint_seconds=config.sampling.checkpoint_seconds,
        ),
    )
    sampler.trust_parents(complete=config.scheduler != "slurm")  # else once all running jobs are adopted
    return sampler


def make_collector(config: Config, *, intake: EventIntake, clock: Clock, tell: Observer) -> Collector:
    """What speaks for the daemon itself: the events that nobody posts."""
    return Collector(
        intake=intake,
        clock=clock,
        tell=tell,
        new_event_id=lambda: str(uuid.uuid4()),
        user_name_of=user_name,
        node=config.node_name,
    )


def make_runaways(
    config: Config,
    *,
    spool: EventSpool,
    intake: EventIntake,
    sampler: Sampler,
    clock: Clock,
    tell: Observer,
    over_runs: OverRuns | None = None,
) -> Runaways:
    """What closes the runs whose end nobody reports."""
    proc = Path(config.sampling.proc_root)
    return Runaways(
        spool=spool,
        intake=intake,
        sight_of=sampler.sight_of,
        steps_of=StepFinder(Path(config.sampling.cgroup_root)).steps_of,
        boot=Boot(boot_id=read_boot_id(proc), booted_us=lambda: read_boot_time_us(proc)),
        clock=clock,
        tell=tell,
        new_event_id=lambda: str(uuid.uuid4()),
        graces=Graces(every_seconds=config.sampling.runaway_seconds, gone_seconds=config.sampling.gone_seconds),
        over_runs=over_runs,
    )


def user_name(uid: int) -> str | None:
    """The login name of a user, None where the uid has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
