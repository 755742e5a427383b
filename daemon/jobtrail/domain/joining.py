"""Which run an event belongs to.

With one of Slurm's keys the answer does not depend on the order of arrival; without (before Slurm 23.02), not on how
nodes interleave. One case is left open: a node that runs epilogs and no prologs (PrologFlags unset in slurm.conf(5)),
of a requeued job whose runs follow each other within SKEW_US. Its epilogs tell only a time, which clocks blur, so they
may be counted to the neighbouring run; no run stays open for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.domain.claims import is_manual
from jobtrail.domain.events import LATEST_US, Actor, Event, EventKind
from jobtrail.domain.job import Job, NodeRun, Run
from jobtrail.domain.records import (
    EPILOG_SLURMCTLD,
    LATEST_EPILOG_US,
    PROLOG_SLURMCTLD,
    SKEW_US,
    SLACK_US,
    begins_after,
    contradicts,
    controller_hook,
    describes,
    moment_of,
    never_began,
    other_restart,
    other_submission,
    restart_count_of,
    same_submission,
    settled_starts,
    slurm_starts,
    told_by_epilog,
)
from jobtrail.domain.slurm import SlurmRecord
from jobtrail.domain.states import State

STARTS = (EventKind.JOB_STARTED, EventKind.JOB_FOUND)


def choose_run(runs: Sequence[Run], event: Event) -> Run | None:
    """The run among `runs` (of one job id, oldest first) that `event` belongs to; None when it begins a new one.

    Slurm's own keys decide where the event carries them: SLUID, then the job's start time, both the same in one run's
    prolog and epilog. Then the event that opened the run on this node. Else the join rules on open and ended nodes.
    """
    if is_manual(event.job_id):
        return next(iter(runs), None)  # people keep one run of it
    if event.kind is EventKind.SLURM_REPORTED or event.run is not None:
        return _run_reported(runs, event)
    candidates = [run for run in _newest_first(runs) if not _told_apart(run, event)]
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


def _newest_first(runs: Sequence[Run]) -> list[Run]:
    """By when they were on, which their numbers need not follow; those of which nobody told when count as newest."""
    moments = {run.job.run: moment_of(run.job) for run in runs}
    return sorted(runs, key=lambda run: (moments[run.job.run] is None, moments[run.job.run] or 0, run.job.run))[::-1]


def _run_reported(runs: Sequence[Run], event: Event) -> Run | None:
    """The run that Slurm's word or the reconciler's is about: the one it names, else the one whose keys or time fit."""
    named = next((run for run in runs if run.job.run == event.run), None)
    if named is not None or event.slurm is None:
        return named
    record = event.slurm
    candidates = [run for run in _newest_first(runs) if not _is_of_other_run(run.job, event, record)]
    for run in candidates:
        if _same_sluid(run, event) or same_submission(run.job, record):
            return run
    for run in candidates:
        if record.start_time is not None and record.start_time in slurm_starts(run.job):
            return run
    if record.start_time is not None and event.source != PROLOG_SLURMCTLD:
        return _run_described(candidates, record)
    if event.source == EPILOG_SLURMCTLD:
        return _newest_begun([run for run in candidates if _ended_by(run.job, event)], event)
    return _next_begun([run for run in candidates if _begins_with(run.job, event)], event.time_us - SKEW_US)


def _is_of_other_run(job: Job, event: Event, record: SlurmRecord) -> bool:
    """Whether what Slurm says of itself shows that it speaks of another run than `job`."""
    if event.sluid is not None and job.sluid is not None:
        return event.sluid != job.sluid
    if other_submission(job, record) or _started_otherwise(job, event):
        return True
    if event.source not in (PROLOG_SLURMCTLD, EPILOG_SLURMCTLD):
        return False
    # slurmctld runs each of its hooks once for each run of a job; its epilog may count the next restart.
    held = controller_hook(job)
    again = held is not None and held.stamp.event_id != event.event_id
    if event.source == EPILOG_SLURMCTLD:
        return again and held is not None and told_by_epilog(held.record)
    again = again and held is not None and not told_by_epilog(held.record)
    return again or other_restart(job, record.facts.restart_count)


def _started_otherwise(job: Job, event: Event) -> bool:
    """Whether a hook was told another start than the run has.

    When nodes have to be powered up for a job, its start is set anew after PrologSlurmctld was told of it. So that one
    may be earlier where the count of restarts shows that it is the same run.
    """
    start, held = event.slurm_start_time, job.slurm_start_time
    if start is None:
        return False
    of_prolog, same = event.source == PROLOG_SLURMCTLD, _same_restart(job, event)
    if held is not None:
        return start != held and not (of_prolog and same and start < held)
    for settled in settled_starts(job):
        if abs(start - settled) > SKEW_US // 1_000_000 and not (of_prolog and same and start < settled):
            return True
    hook = controller_hook(job)
    told = start if hook is None or hook.record.start_time is None else hook.record.start_time
    return start != told and (of_prolog or start < told or not same)


def _same_restart(job: Job, event: Event) -> bool:
    facts = event.facts if event.slurm is None else event.slurm.facts
    count = None if facts is None else facts.restart_count
    return count is not None and count == restart_count_of(job)


def _run_described(runs: Sequence[Run], record: SlurmRecord) -> Run | None:
    """The run that `record` tells the start of: the first that began from then on, as hooks and scans come later."""
    described = [run for run in runs if describes(run.job, record) or _says_nothing(run.job, record)]
    return _next_begun(described, (record.start_time or 0) * 1_000_000)


def _says_nothing(job: Job, record: SlurmRecord) -> bool:
    """Whether nobody told when the run was on, and nothing else speaks against this record."""
    return moment_of(job) is None and not job.is_over and not record.is_final and not contradicts(job, record)


def _next_begun(runs: Sequence[Run], time_us: int) -> Run | None:
    """The first run that was on from that moment on; where none was, as clocks differ, the last before it."""
    on = {run.job.run: moment for run in runs if (moment := moment_of(run.job)) is not None}
    known = [run for run in runs if run.job.run in on]
    if later := [run for run in known if on[run.job.run] >= time_us]:
        return min(later, key=lambda run: on[run.job.run])
    return max(known, key=lambda run: on[run.job.run]) if known else next(iter(runs), None)


def _begins_with(job: Job, event: Event) -> bool:
    """Whether the run began when slurmctld told of one without its start, or soon after: a node's prolog is later."""
    record, moment = event.slurm, moment_of(job)
    assert record is not None
    if moment is None:
        return _says_nothing(job, record)
    if record.is_final or record.is_pending or (begins_after(job, event.time_us) and not _same_restart(job, event)):
        return False
    return event.time_us <= moment + SKEW_US and (job.told_end_us is None or event.time_us <= job.told_end_us)


def _ended_by(job: Job, event: Event) -> bool:
    """Whether the run ended about when the controller's epilog ran, which does not wait for those of the nodes."""
    if job.start_us is None and job.told_end_us is not None:
        return abs(event.time_us - job.told_end_us) <= SLACK_US
    if (moment_of(job) or 0) > event.time_us + SKEW_US:
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
    if event.slurm_start_time is not None and event.slurm_start_time == job.slurm_start_time:
        return False
    if never_began(job) or _started_otherwise(job, event) or _restarted(job, event):
        return True
    if begins_after(job, event.time_us) and not _told_of(run, event.node):
        return True
    if event.sluid is not None or event.slurm_start_time is not None or event.opened_by is None or event.kind in STARTS:
        return False
    return part is not None and part.opened_by is not None and not _same_opener(run, event)


def _restarted(job: Job, event: Event) -> bool:
    """Whether a prolog counts another number of restarts. An epilog may already count the next one."""
    if event.kind is not EventKind.JOB_STARTED or event.facts is None:
        return False
    return other_restart(job, event.facts.restart_count)


def _same_sluid(run: Run, event: Event) -> bool:
    return event.sluid is not None and run.job.sluid == event.sluid


def _same_start_time(run: Run, event: Event) -> bool:
    return event.slurm_start_time is not None and event.slurm_start_time in slurm_starts(run.job)


def _same_opener(run: Run, event: Event) -> bool:
    part = run.nodes.get(event.node)
    return part is not None and event.opened_by is not None and event.opened_by in openers(part)


def openers(part: NodeRun) -> tuple[str, ...]:
    """The events that told the beginning of a node's part."""
    return part.also_opened_by if part.opened_by is None else (part.opened_by, *part.also_opened_by)


def _lists(job: Job, node: str) -> bool:
    return not job.nodes or node in job.nodes


def _run_to_start(runs: Sequence[Run], event: Event) -> Run | None:
    """The run whose beginning on this node `event` tells."""
    if late := [run for run in runs if _awaits_late_start(run, event)]:
        return min(late, key=lambda run: run.nodes[event.node].ended_us or 0)
    again = next((run for run in runs if _same_start(run, event)), None)
    unheard = [run for run in runs if _unheard(run, event)]
    around = [run for run in unheard if _was_on(run.job, event.time_us)]
    return again or min(around, key=_end_known, default=None) or _newest_begun(unheard, event)


def _was_on(job: Job, time_us: int) -> bool:
    """Whether the run was on at that moment by what is known of its beginning and its end."""
    return (job.start_us is None or job.start_us <= time_us) and time_us <= _end_known_of(job)


def _newest_begun(runs: Sequence[Run], event: Event) -> Run | None:
    """The newest run that had begun by the time of `event`; where none had, as clocks differ, the oldest."""
    for run in runs:
        if run.job.start_us is None or run.job.start_us <= event.time_us:
            return run
    return runs[-1] if runs else None


def _unheard(run: Run, event: Event) -> bool:
    """Whether this node belongs to the run, which was not over by the time of `event`, and told nothing of it yet."""
    if _told_of(run, event.node) or not _lists(run.job, event.node):
        return False
    hook = controller_hook(run.job)
    if event.kind in STARTS and hook is not None and told_by_epilog(hook.record):
        # Whatever nodes still do then, they begin nothing any more.
        return event.time_us <= hook.stamp.time_us + SKEW_US and not _over_before(run.job, event.time_us)
    return not _over_before(run.job, event.time_us)


def _told_of(run: Run, node: str) -> bool:
    part = run.nodes.get(node)
    return part is not None and (part.started_us is not None or part.ended_us is not None)


def _over_before(job: Job, time_us: int) -> bool:
    """Whether the run was over before that moment; Slurm's own word on the end is not exact to less than SLACK_US.

    Where nothing but epilogs is known of a run, clocks and slow nodes make the end as inexact.
    """
    if job.told_end_us is not None and job.only_ends_told and job.nodes_over < job.nodes_expected:
        return time_us > job.told_end_us + SLACK_US
    if _is_open(job) or job.end_us is None:
        return False
    return time_us > job.end_us + (SLACK_US if job.told_end_us is None else 0)


def _awaits_late_start(run: Run, event: Event) -> bool:
    """Whether this node told the run's end, which lies after `event`, and nothing of its beginning."""
    part = run.nodes.get(event.node)
    if part is None or part.started_us is not None or part.ended_us is None:
        return False
    return event.time_us <= part.ended_us and _lists(run.job, event.node)


def _same_start(run: Run, event: Event) -> bool:
    """Whether a node's part that already began is the one `event` reports: a guess confirmed, or the report again."""
    part = run.nodes.get(event.node)
    if part is None or part.started_us is None:
        return False
    found = event.kind is EventKind.JOB_FOUND
    if event.event_id in openers(part):
        return True
    if part.over_us is None:
        return (part.found or found) and not _over_before(run.job, event.time_us)
    if event.time_us > part.over_us:
        return False
    return part.found or (found and event.time_us >= part.started_us)


def _run_to_finish(runs: Sequence[Run], event: Event) -> Run | None:
    """The run whose end on this node `event` tells; an end before a start is another run's, if another fits."""
    if again := [run for run in runs if _told_end(run, event.node) == event.time_us]:
        return again[0]
    open_here = [run for run in runs if _is_open_on(run, event.node) and not _long_over(run.job, event)]
    if begun := [run for run in open_here if (run.nodes[event.node].started_us or 0) <= event.time_us]:
        return max(begun, key=lambda run: run.nodes[event.node].started_us or 0)
    # Slurm runs no prolog, and yet an epilog, where the job launched nothing (PrologFlags in slurm.conf(5)).
    unannounced = _ended_about([run for run in runs if _unheard(run, event) or _awaits_late_end(run, event)], event)
    clock_set_back = next(iter(open_here), None)
    told = next((run for run in runs if _tells_same_end(run.nodes.get(event.node), event)), None)
    return unannounced or clock_set_back or told


def _ended_about(runs: Sequence[Run], event: Event) -> Run | None:
    """Of runs whose end on this node is unknown, the one whose end elsewhere is nearest to `event`.

    One that goes on may have ended just now, unless it has only just begun. Where none had begun, as clocks differ, the
    oldest.
    """
    begun = [run for run in runs if run.job.start_us is None or run.job.start_us <= event.time_us]
    if not begun:
        return next((run for run in runs[::-1] if (run.job.start_us or 0) <= event.time_us + SLACK_US), None)

    def away_us(run: Run) -> int:
        end_us = _end_known_of(run.job)
        if end_us < LATEST_US:
            return abs(event.time_us - end_us)
        return max(0, SKEW_US - (event.time_us - (run.job.start_us or 0)))

    return min(begun, key=away_us)


def _end_known(run: Run) -> int:
    return _end_known_of(run.job)


def _end_known_of(job: Job) -> int:
    """When the run ended, or the last of its nodes that told; LATEST_US while no end is known."""
    known = (job.end_us, job.told_end_us)
    return next((time_us for time_us in known if time_us is not None), LATEST_US)


def _told_end(run: Run, node: str) -> int | None:
    part = run.nodes.get(node)
    return None if part is None else part.ended_us


def _is_open_on(run: Run, node: str) -> bool:
    part = run.nodes.get(node)
    return part is not None and part.started_us is not None and part.ended_us is None


def _long_over(job: Job, event: Event) -> bool:
    """Whether an epilog comes so long after the run was over that it is more likely another's with the same job id."""
    if event.changed_by is not Actor.SLURM_EPILOG or _is_open(job) or job.end_us is None:
        return False
    return event.time_us > job.end_us + LATEST_EPILOG_US


def _awaits_late_end(run: Run, event: Event) -> bool:
    """Whether this is the epilog of a node that was away when the run was over, and on which no prolog ran.

    slurmd runs the epilog when it is back. By then the run's other nodes or Slurm itself may have told its end, so only
    what the epilog says of the job shows that it is this one.
    """
    job, facts = run.job, event.facts
    if event.changed_by is not Actor.SLURM_EPILOG or facts is None or _told_of(run, event.node):
        return False
    known = job.facts
    if facts.nodes is None or facts.nodes != known.nodes or len({facts.uid, known.uid} - {None}) > 1:
        return False
    return not _long_over(job, event)


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
