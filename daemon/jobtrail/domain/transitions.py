"""Which run an event belongs to, and what it changes there.

`choose_run` and `apply` decide and touch nothing. A run's events may arrive in any order and more than once: every
field is the minimum, the maximum or the sum of what its events say, or the word of the report with the smallest stamp,
so the result is the same for every order of arrival.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage
from jobtrail.domain.job import FactsRegister, Job, NodeRun, OutcomeRegister, Run, Stamp
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.states import State, Verdict
from jobtrail.domain.usage import larger, merge_reports, replace_in_total, smaller

RUN_NAMESPACE = uuid.UUID("3f1c8a52-60f4-5d0e-9d0b-6a1b5e7c9d21")
_STARTS = (EventKind.JOB_STARTED, EventKind.JOB_FOUND)
_FINAL_STATES: Mapping[str, tuple[State, Verdict]] = MappingProxyType(
    {
        "completed": (State.COMPLETED, Verdict.COMPLETED),
        "failed": (State.FAILED, Verdict.FAILED),
        "cancelled": (State.CANCELLED, Verdict.CANCELLED),
    }
)


class Changed(msgspec.Struct, frozen=True):
    """The run after the event, and whether the event created it."""

    run: Run
    created: bool


class Duplicate(msgspec.Struct, frozen=True):
    """The event says nothing the run does not know."""

    run: Run


class Rejected(msgspec.Struct, frozen=True):
    """The event cannot be applied; the trail keeps it all the same."""

    reason: str


def choose_run(runs: Sequence[Run], event: Event) -> Run | None:
    """The run among `runs` (of one job id, oldest first) that `event` belongs to; None when it begins a new one.

    Slurm's own keys decide where the event carries them: SLUID, then the job's start time, both the same in one run's
    prolog and epilog. Then the event that opened the run on this node. Else the join rules on open and ended nodes.
    """
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
    if (
        event.sluid is not None
        or event.slurm_start_time is not None
        or event.opened_by is None
        or event.kind in _STARTS
    ):
        return False
    return part is not None and part.opened_by is not None and not _same_opener(run, event)


def _same_sluid(run: Run, event: Event) -> bool:
    return event.sluid is not None and run.job.sluid == event.sluid


def _same_start_time(run: Run, event: Event) -> bool:
    return event.slurm_start_time is not None and run.job.slurm_start_time == event.slurm_start_time


def _same_opener(run: Run, event: Event) -> bool:
    part = run.nodes.get(event.node)
    return part is not None and event.opened_by is not None and event.opened_by in _openers(part)


def _openers(part: NodeRun) -> tuple[str, ...]:
    return part.also_opened_by if part.opened_by is None else (part.opened_by, *part.also_opened_by)


def _lists(job: Job, node: str) -> bool:
    nodes = job.facts.nodes
    return nodes is None or node in nodes


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
    return (_is_open(run.job) or event.time_us <= (run.job.end_us or 0)) and _lists(run.job, event.node)


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
    if event.event_id in _openers(part):
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


def open_run(cluster: str, job_id: str, number: int) -> Run:
    """An empty run; its correlation id follows from its key, so every writer and every rebuild gives the same."""
    correlation_id = str(uuid.uuid5(RUN_NAMESPACE, f"{cluster}/{job_id}/{number}"))
    return Run(job=Job(cluster_name=cluster, job_id=job_id, run=number, correlation_id=correlation_id))


def apply(run: Run, event: Event, *, created: bool = False) -> Changed | Duplicate | Rejected:
    """What `event` makes of `run`. `run.nodes` must hold this event's node if that node is known."""
    handler = _HANDLERS.get(event.kind)
    if handler is None:
        return Rejected(f"an event of kind {event.kind} is not about a run")
    before = run.nodes.get(event.node) or NodeRun(node=event.node)
    job, part = handler(_with_keys(run.job, event), before, event)
    job = _with_state(msgspec.structs.replace(job, window_us=job.window_us + _window(part) - _window(before)))
    nodes = {**run.nodes, event.node: part}
    if not created and job == run.job and nodes == run.nodes:
        return Duplicate(run)
    return Changed(Run(job=job, nodes=nodes), created)


def _with_keys(job: Job, event: Event) -> Job:
    sluids = [sluid for sluid in (job.sluid, event.sluid) if sluid is not None]
    return msgspec.structs.replace(
        job,
        sluid=min(sluids, default=None),
        slurm_start_time=smaller(job.slurm_start_time, event.slurm_start_time),
    )


def _started(job: Job, part: NodeRun, event: Event) -> tuple[Job, NodeRun]:
    found = event.kind is EventKind.JOB_FOUND
    facts = event.facts or JobFacts()
    first = part.started_us is None
    openers = {*_openers(part), event.event_id}
    if part.started_us is None or (found, event.time_us, event.event_id) < (
        part.found, part.started_us, part.opened_by or ""):  # fmt: skip
        part = msgspec.structs.replace(part, started_us=event.time_us, found=found, opened_by=event.event_id)
    part = msgspec.structs.replace(part, also_opened_by=tuple(sorted(openers - {part.opened_by})))
    job, part = _with_cpus(job, part, facts.cpus)
    inferred, start_us = (found, event.time_us)
    if job.start_us is not None and (job.start_inferred, job.start_us) < (inferred, start_us):
        inferred, start_us = job.start_inferred, job.start_us
    stamp = Stamp(_rank(event.node, facts, found=found), event.time_us, event.event_id)
    job = msgspec.structs.replace(
        job,
        start_us=start_us,
        start_inferred=inferred,
        nodes_started=job.nodes_started + first,
        first_facts=_first_register(job.first_facts, stamp, facts),
    )
    return job, part


def _finished(job: Job, part: NodeRun, event: Event) -> tuple[Job, NodeRun]:
    facts = event.facts or JobFacts()
    first = part.ended_us is None
    part = msgspec.structs.replace(part, ended_us=larger(part.ended_us, event.time_us))
    outcome = event.outcome or Outcome()
    confirmed = outcome.final_state is not None
    rank = _rank(event.node, facts, found=False)
    stamp = Stamp(rank, event.time_us, event.event_id)
    register = OutcomeRegister(stamp=stamp, outcome=outcome, confirmed=confirmed)
    if job.outcome is not None and (not job.outcome.confirmed, job.outcome.stamp) < (not confirmed, stamp):
        register = job.outcome
    job = msgspec.structs.replace(
        job,
        end_us=larger(job.end_us, event.time_us),
        nodes_ended=job.nodes_ended + first,
        outcome=register,
        last_facts=_first_register(job.last_facts, stamp, facts),
    )
    return job, part


def _used(job: Job, part: NodeRun, event: Event) -> tuple[Job, NodeRun]:
    merged = merge_reports(part.usage, event.usage or NodeUsage())
    job = msgspec.structs.replace(
        job,
        usage=replace_in_total(job.usage, part.usage, merged),
        nodes_reporting=job.nodes_reporting + (part.usage is None),
    )
    return job, msgspec.structs.replace(part, usage=merged)


def _window(part: NodeRun) -> int:
    if part.started_us is None or part.ended_us is None:
        return 0
    return max(0, part.ended_us - part.started_us)


def _rank(node: str, facts: JobFacts, *, found: bool) -> int:
    """0 for the batch host, whose word on the job counts most; then other nodes; last a guess from a cgroup."""
    if found:
        return 2
    return 0 if facts.nodes and facts.nodes[0] == node else 1


def _first_register(held: FactsRegister | None, stamp: Stamp, facts: JobFacts) -> FactsRegister:
    facts = msgspec.structs.replace(facts, cpus=None)  # a node's own share; summed over nodes instead
    return held if held is not None and held.stamp <= stamp else FactsRegister(stamp=stamp, facts=facts)


def _with_cpus(job: Job, part: NodeRun, cpus: int | None) -> tuple[Job, NodeRun]:
    if cpus is None or cpus <= (part.cpus or 0):
        return job, part
    allocated = (job.cpus_allocated or 0) + cpus - (part.cpus or 0)
    return msgspec.structs.replace(job, cpus_allocated=allocated), msgspec.structs.replace(part, cpus=cpus)


def _with_state(job: Job) -> Job:
    confirmed = job.outcome is not None and job.outcome.confirmed
    expected = len(job.facts.nodes or ()) or max(job.nodes_started, 1)
    if not confirmed and job.nodes_ended < expected:
        state = State.RUNNING if job.nodes_started or job.nodes_ended else State.PENDING
        return msgspec.structs.replace(job, state=state, verdict=None, state_confirmed=False)
    outcome = job.outcome.outcome if job.outcome else Outcome()
    state, verdict = judge(outcome)
    return msgspec.structs.replace(job, state=state, verdict=verdict, state_confirmed=confirmed)


def judge(outcome: Outcome) -> tuple[State, Verdict]:
    """State and verdict of an ended run. Exit code 0 without a final state stays `ended`: it proves nothing."""
    state, verdict = _FINAL_STATES.get(outcome.final_state or "", (State.ENDED, Verdict.UNKNOWN))
    if state is State.CANCELLED or state is State.COMPLETED:
        return state, verdict
    if outcome.out_of_memory:
        return State.FAILED, Verdict.OUT_OF_MEMORY
    if outcome.exit_signal:
        return State.FAILED, Verdict.KILLED_BY_SIGNAL
    if outcome.exit_code:
        return State.FAILED, Verdict.FAILED
    return state, verdict


_Handler = Callable[[Job, NodeRun, Event], tuple[Job, NodeRun]]
_HANDLERS: Mapping[EventKind, _Handler] = MappingProxyType(
    {
        EventKind.JOB_STARTED: _started,
        EventKind.JOB_FOUND: _started,
        EventKind.JOB_FINISHED: _finished,
        EventKind.CHECKPOINT: _used,
        EventKind.USAGE_RECORDED: _used,
    }
)
