"""The part of the composition that knows this node: its boot, its users, what became of its runs."""

from __future__ import annotations

import pwd
import uuid
from pathlib import Path

from jobtrail.adapters.cgroup import StepFinder
from jobtrail.adapters.procfs import read_boot_id, read_boot_time_us
from jobtrail.config import Config
from jobtrail.core.facts import Observer
from jobtrail.core.over_runs import OverRuns
from jobtrail.core.ports import Clock, EventIntake, EventSpool
from jobtrail.core.runaways import Boot, Graces, Runaways
from jobtrail.core.sampler import Sampler


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
