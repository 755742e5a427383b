"""Whether a node has a part in a job, as far as Slurm itself has said where the job ran.

A node's word on its own part counts before Slurm's, which comes seconds later. Once Slurm has named the nodes of a run,
a node that is none of them can change nothing in it any more. What is not contradicted is believed: a requeued job
begins anew on other nodes before anybody tells that it left the first ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobtrail.domain.events import LATEST_US, Event, EventKind
from jobtrail.domain.job import Job, Run
from jobtrail.domain.records import SKEW_US, other_restart, slurm_starts

_STARTS = (EventKind.JOB_STARTED, EventKind.JOB_FOUND)
_BEGIN_OR_END = (*_STARTS, EventKind.JOB_FINISHED)  # these may be the first word on a run
_FOLLOW = (EventKind.CHECKPOINT, EventKind.USAGE_RECORDED, EventKind.JOB_CLOSED)  # each after one of its own node
NAMES_TOLD = 3


def is_elsewhere(job: Job, node: str, *, has_part: bool) -> bool:
    """Whether Slurm named the nodes of this run, and `node` is none of them.

    `has_part`: the run holds a part of the node already. Such a one, and one that the run's prologs and epilogs list,
    may have been given back while the job ran (`scontrol update NumNodes`): Slurm then names only those that are left.
    """
    named = job.named_by_slurm
    if not named or has_part or node in named:
        return False
    registers = (job.first_facts, job.last_facts)
    return not any(node in (held.facts.nodes or ()) for held in registers if held is not None)


def refused_part(runs: Sequence[Run], chosen: Run | None, event: Event) -> str | None:
    """Why `event`, a node's word on its part of a job with these runs, changes none of them; None if it may.

    `chosen` is the run that it belongs to by its keys; None where it would begin a new one.
    """
    if event.kind not in (*_BEGIN_OR_END, *_FOLLOW) or (event.closing is not None and event.closing.whole_run):
        return None
    if chosen is not None:
        against = [chosen] if _is_elsewhere(chosen, event.node) else []
    elif event.kind in _BEGIN_OR_END:
        against = [run for run in runs if _is_elsewhere(run, event.node) and _is_of(run.job, event)]
    else:
        against = list(runs) if all(_is_elsewhere(run, event.node) for run in runs) else []
    return _reason(against[-1].job, event.node) if against else None


def refused_until(runs: Iterable[tuple[Job, bool]], node: str) -> int | None:
    """Until when (µs since the epoch) a sample of a job with these runs cannot be of `node`; None if it can be.

    Each run comes with whether it holds a part of the node. After the last of them the job may have begun anew.
    """
    ends = []
    for job, has_part in runs:
        if not is_elsewhere(job, node, has_part=has_part):
            return None
        ends.append(LATEST_US if job.end_us is None else job.end_us)
    return max(ends, default=None)


def _is_elsewhere(run: Run, node: str) -> bool:
    return is_elsewhere(run.job, node, has_part=node in run.nodes)


def _is_of(job: Job, event: Event) -> bool:
    """Whether a beginning or an end that is joined to no run is of this one by its time, and nothing shows another."""
    if _shows_another(job, event):
        return False
    if job.start_us is not None and event.time_us < job.start_us - SKEW_US:
        return False
    return job.end_us is None or event.time_us <= job.end_us


def _shows_another(job: Job, event: Event) -> bool:
    """Whether one of Slurm's keys in `event`, or its count of restarts, is another than the run's."""
    if event.sluid is not None and job.sluid is not None:
        return event.sluid != job.sluid
    starts = slurm_starts(job)
    if event.slurm_start_time is not None and starts:
        return event.slurm_start_time not in starts
    # An epilog may already count the next restart.
    counts = event.kind in _STARTS and event.facts is not None
    return counts and event.facts is not None and other_restart(job, event.facts.restart_count)


def _reason(job: Job, node: str) -> str:
    named = sorted(job.named_by_slurm)
    told = ", ".join(named[:NAMES_TOLD]) + (f" and {len(named) - NAMES_TOLD} more" if len(named) > NAMES_TOLD else "")
    return f"Slurm says that run {job.run} of the job is on {told[:300]}, and not on {node[:256]}"
