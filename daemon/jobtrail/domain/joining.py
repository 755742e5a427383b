"""Which run an event belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.domain.events import Actor, Event, EventKind
from jobtrail.domain.job import Job, NodeRun, Run
from jobtrail.domain.slurm import SlurmRecord
from jobtrail.domain.states import State

STARTS = (EventKind.JOB_STARTED, EventKind.JOB_FOUND)
# Slurm's times are whole seconds, its clock is another machine's, and an epilog comes after the end it speaks of.
SLACK_US = 120_000_000
SKEW_US = 5_000_000  # between the clocks of a node and of the controller
EPILOG_SLURMCTLD = "epilog_slurmctld"  # source of what EpilogSlurmctld says


def choose_run(runs: Sequence[Run], event: Event) -> Run | None:
    """The run among `runs` (of one job id, oldest first) that `event` belongs to; None when it begins a new one.

    Slurm's own keys decide where the event carries them: SLUID, then the job's start time, both the same in one run's
    prolog and epilog. Then the event that opened the run on this node. Else the join rules on open and ended nodes.
    """
    if event.kind is EventKind.SLURM_REPORTED or event.run is not None:
        return _run_reported(runs, event)
    candidates = [run for run in reversed(runs) if not _told_apart(run, event)]
    for matches in (_same_sluid, _same_start_time, _same_opener):
        for run in candidates:
            if matches(run, event):
                return run
    match event.kind:
        case EventKind.JOB_STARTED | EventKind.JOB_FOUND:
            return _run_to_start(candidates, event)
        case EventKind.JOB_FINISHED:
            return _run_to_finish(candidates, event)
        case _:
            return _run_used(candidates, event)


def _run_reported(runs: Sequence[Run], event: Event) -> Run | None:
    """The run that Slurm's word or the reconciler's is about: the one it names, else the one whose keys or time fit."""
    named = next((run for run in runs if run.job.run == event.run), None)
    if named is not None or event.slurm is None:
        return named
    record = event.slurm
    candidates = [run for run in reversed(runs) if not _other_submission(run.job, record)]
    for run in candidates:
        if _same_sluid(run, event) or same_submission(run.job, record) or _same_start_time(run, event):
            return run
    fits = _ended_by if event.source == EPILOG_SLURMCTLD and record.start_time is None else _began_by
    return min((run for run in candidates if fits(run.job, event)), key=lambda run: run.job.start_us or 0, default=None)


def submit_times(job: Job) -> set[int]:
    return {word.record.submit_time for word in job.words if word.record.submit_time is not None}


def same_submission(job: Job, record: SlurmRecord) -> bool:
    return record.submit_time in submit_times(job)


def _other_submission(job: Job, record: SlurmRecord) -> bool:
    """Whether both were submitted, and not at the same moment: Slurm sets the time anew at each requeue."""
    return record.submit_time is not None and bool(submit_times(job)) and not same_submission(job, record)


def _began_by(job: Job, event: Event) -> bool:
    """Whether the run began at the record's start, or a while after: a node's prolog and a scan see it later."""
    record = event.slurm
    assert record is not None
    if job.start_us is None:
        return not job.is_over and not record.is_final
    start_us = event.time_us if record.start_time is None else record.start_time * 1_000_000
    if record.end_time is not None and job.start_us > record.end_time * 1_000_000 + SKEW_US:
        return False
    return start_us <= job.start_us + SKEW_US and (job.told_end_us is None or start_us <= job.told_end_us)


def _ended_by(job: Job, event: Event) -> bool:
    """Whether the run ended about when the controller's epilog ran, which does not wait for those of the nodes."""
    if (job.start_us or 0) > event.time_us + SKEW_US:
        return False
    return job.end_us is None or event.time_us <= job.end_us + SLACK_US


def _told_apart(run: Run, event: Event) -> bool:
    """Whether a key that both carry says these are two runs: one of Slurm's, else the opener of the node's run.

    A start never names its opener, it is one itself. Beside a key of Slurm's the opener says nothing: it may be a guess
    that another start is yet to confirm.
    """
    job, part = run.job, run.nodes.get(event.node)
    if event.sluid is not None and job.sluid is not None:
        return event.sluid != job.sluid
    if event.slurm_start_time is not None and job.slurm_start_time is not None:
        return event.slurm_start_time != job.slurm_start_time
    if event.sluid is not None or event.slurm_start_time is not None or event.opened_by is None or event.kind in STARTS:
        return False
    return part is not None and part.opened_by is not None and not _same_opener(run, event)


def _same_sluid(run: Run, event: Event) -> bool:
    return event.sluid is not None and run.job.sluid == event.sluid


def _same_start_time(run: Run, event: Event) -> bool:
    return event.slurm_start_time is not None and run.job.slurm_start_time == event.slurm_start_time


def _same_opener(run: Run, event: Event) -> bool:
    part = run.nodes.get(event.node)
    return part is not None and event.opened_by is not None and event.opened_by in openers(part)


def openers(part: NodeRun) -> tuple[str, ...]:
    return part.also_opened_by if part.opened_by is None else (part.opened_by, *part.also_opened_by)


def _lists(job: Job, node: str) -> bool:
    return not job.nodes or node in job.nodes


def _run_to_start(runs: Sequence[Run], event: Event) -> Run | None:
    """The run whose beginning on this node `event` tells."""
    if late := [run for run in runs if _awaits_late_start(run, event)]:
        return min(late, key=lambda run: run.nodes[event.node].ended_us or 0)
    again = next((run for run in runs if _same_start(run.nodes.get(event.node), event)), None)
    return again or _newest_begun([run for run in runs if _unheard(run, event)], event)


def _newest_begun(runs: Sequence[Run], event: Event) -> Run | None:
    """The newest run that had begun by the time of `event`; where none had, as clocks differ, the oldest."""
    for run in runs:
        if run.job.start_us is None or run.job.start_us <= event.time_us:
            return run
    return runs[-1] if runs else None


def _unheard(run: Run, event: Event) -> bool:
    """Whether this node belongs to the run, which was not over by the time of `event`, and told nothing of it yet."""
    part = run.nodes.get(event.node)
    if part is not None and (part.started_us is not None or part.ended_us is not None):
        return False
    return not _over_before(run.job, event.time_us) and _lists(run.job, event.node)


def _over_before(job: Job, time_us: int) -> bool:
    """Whether the run was over before that moment; Slurm's own word on the end is not exact to less than SLACK_US."""
    if _is_open(job):
        return False
    return time_us > (job.end_us or 0) + (SLACK_US if job.told_end_us is None else 0)


def _awaits_late_start(run: Run, event: Event) -> bool:
    """Whether this node told the run's end, which lies after `event`, and nothing of its beginning."""
    part = run.nodes.get(event.node)
    if part is None or part.started_us is not None or part.ended_us is None:
        return False
    return event.time_us <= part.ended_us and _lists(run.job, event.node)


def _same_start(part: NodeRun | None, event: Event) -> bool:
    """Whether a node's part that already began is the one `event` reports: a guess confirmed, or the report again."""
    if part is None or part.started_us is None:
        return False
    found = event.kind is EventKind.JOB_FOUND
    if event.event_id in openers(part):
        return True
    if part.ended_us is None:
        return part.found or found
    if event.time_us > part.ended_us:
        return False
    return part.found or (found and event.time_us >= part.started_us)


def _run_to_finish(runs: Sequence[Run], event: Event) -> Run | None:
    """The run whose end on this node `event` tells; an end before a start is another run's, if another fits."""
    open_here = [run for run in runs if _is_open_on(run, event.node)]
    if begun := [run for run in open_here if (run.nodes[event.node].started_us or 0) <= event.time_us]:
        return max(begun, key=lambda run: run.nodes[event.node].started_us or 0)
    # Slurm runs no prolog, and yet an epilog, where the job launched nothing (PrologFlags in slurm.conf(5)).
    unannounced = _newest_begun([run for run in runs if _unheard(run, event)], event)
    clock_set_back = next(iter(open_here), None)
    told = next((run for run in runs if _tells_same_end(run.nodes.get(event.node), event)), None)
    return unannounced or clock_set_back or told


def _is_open_on(run: Run, node: str) -> bool:
    part = run.nodes.get(node)
    return part is not None and part.started_us is not None and part.ended_us is None


def _tells_same_end(part: NodeRun | None, event: Event) -> bool:
    """Whether `event` is one more word on an end that is known.

    A Slurm epilog after that end is none: slurmd runs the epilog once per run of a job (`cred_begin_expiration` in
    slurmd's req.c), so it ends a run whose beginning is yet to be told.
    """
    if part is None or part.ended_us is None:
        return False
    if event.changed_by is not Actor.SLURM_EPILOG:
        return True
    return (part.started_us or 0) <= event.time_us <= part.ended_us


def _run_used(runs: Sequence[Run], event: Event) -> Run | None:
    known = next((run for run in runs if event.node in run.nodes), None)
    return known or next((run for run in runs if _lists(run.job, event.node)), None)


def _is_open(job: Job) -> bool:
    return job.state in (State.PENDING, State.RUNNING)
