"""What an event changes in its run.

`apply` decides and touches nothing. A run's events may arrive in any order and more than once: every
field is the minimum, the maximum or the sum of what its events say, or the word of the report with the smallest stamp,
so the result is the same for every order of arrival.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from jobtrail.domain.events import PERSONS_KINDS, Event, EventKind, NodeUsage
from jobtrail.domain.job import Job, NodeRun, Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.joining import openers
from jobtrail.domain.people import PeoplesWord, misplaced, told_by_person
from jobtrail.domain.records import PROLOG_SLURMCTLD
from jobtrail.domain.registers import ClosingRegister, FactsRegister, NodeClosing, OutcomeRegister, Stamp, Word
from jobtrail.domain.slurm import SlurmRecord
from jobtrail.domain.usage import larger, merge_reports, replace_in_total, smaller

RUN_NAMESPACE = uuid.UUID("3f1c8a52-60f4-5d0e-9d0b-6a1b5e7c9d21")
# An epilog may wait for processes that are slow to die; one that is later than this comes from a node that was away,
# and Slurm's own time is nearer to the end of the run.
LATE_EPILOG_US = 120_000_000


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


def open_run(cluster: str, job_id: str, number: int) -> Run:
    """An empty run; its correlation id follows from its key, so every writer and every rebuild gives the same."""
    correlation_id = str(uuid.uuid5(RUN_NAMESPACE, f"{cluster}/{job_id}/{number}"))
    return Run(job=Job(cluster_name=cluster, job_id=job_id, run=number, correlation_id=correlation_id))


def apply(run: Run, event: Event, *, created: bool = False) -> Changed | Duplicate | Rejected:
    """What `event` makes of `run`. `run.nodes` must hold this event's node if that node is known."""
    nodes = run.nodes
    if (lacking := _LACKING.get(event.kind)) is not None and getattr(event, lacking) is None:
        return Rejected(f"an event of kind {event.kind} must have `{lacking}`")
    if (problem := misplaced(event)) is not None:
        return Rejected(problem)
    if event.kind is EventKind.COMMENT_WRITTEN and created:
        return Rejected("a comment is on a run that is known")
    held = _with_keys(_as_of_now(run.job), event)
    if (of_run := _OF_THE_RUN.get(event.kind)) is not None and not _of_a_node(event):
        job = of_run(held, event)
    elif (of_node := _OF_A_NODE.get(event.kind)) is not None:
        before = _part_as_of_now(nodes.get(event.node) or NodeRun(node=event.node))
        job, part = of_node(held, before, event)
        part = _disproved(part)
        job = _counted(job, before, part)
        nodes = {**nodes, event.node: part}
    else:
        return Rejected(f"an event of kind {event.kind} is not about a run")
    job = _derived(job)
    if not created and job == run.job and nodes == run.nodes:
        return Duplicate(run)
    return Changed(Run(job=job, nodes=nodes), created)


def _of_a_node(event: Event) -> bool:
    """Whether a closing is of one node's part; of the run as a whole it changes no node."""
    return event.closing is not None and not event.closing.whole_run


def _as_of_now(job: Job) -> Job:
    """A projection that an earlier release stored: it knew only told ends, and start and end themselves."""
    if job.nodes_started and job.begun_us is None:
        job = msgspec.structs.replace(job, begun_us=job.start_us, begun_inferred=job.start_inferred)
    if job.nodes_ended and job.told_end_us is None and job.closed_us is None:
        job = msgspec.structs.replace(job, told_end_us=job.end_us, nodes_told=job.nodes_ended)
    if job.closing is not None and not job.closings:
        job = msgspec.structs.replace(job, closings=(job.closing,))
    return job


def _part_as_of_now(part: NodeRun) -> NodeRun:
    """A node's part that an earlier release stored: it kept what follows from the closings alone."""
    if part.closings or part.closed_us is None:
        return part
    not_before_us = part.closed_us if part.closed_not_before_us is None else part.closed_not_before_us
    closing = NodeClosing(part.closed_us, not_before_us, part.closed_because or "")
    return msgspec.structs.replace(part, closings=(closing,))


def _with_keys(job: Job, event: Event) -> Job:
    """The job with Slurm's keys that the event bears.

    The start that PrologSlurmctld is told may be set anew before any node begins the job: when the nodes that were
    powered up for it are ready.
    """
    start_time = None if event.source == PROLOG_SLURMCTLD else event.slurm_start_time
    told = (job.sluid, event.sluid, event.slurm.sluid if event.slurm else None)
    sluids = [sluid for sluid in told if sluid is not None]
    return msgspec.structs.replace(
        job,
        sluid=min(sluids, default=None),
        slurm_start_time=smaller(job.slurm_start_time, start_time),
    )


def _started(job: Job, part: NodeRun, event: Event) -> tuple[Job, NodeRun]:
    found = event.kind is EventKind.JOB_FOUND
    facts = event.facts or JobFacts()
    first = part.started_us is None
    told_by = {*openers(part), event.event_id}
    if part.started_us is None or (found, event.time_us, event.event_id) < (
        part.found, part.started_us, part.opened_by or ""):  # fmt: skip
        part = msgspec.structs.replace(part, started_us=event.time_us, found=found, opened_by=event.event_id)
    part = msgspec.structs.replace(part, also_opened_by=tuple(sorted(told_by - {part.opened_by})))
    job, part = _with_cpus(job, part, facts.cpus)
    inferred, start_us = (found, event.time_us)
    if job.begun_us is not None and (job.begun_inferred, job.begun_us) < (inferred, start_us):
        inferred, start_us = job.begun_inferred, job.begun_us
    stamp = Stamp(_rank(event.node, facts, found=found), event.time_us, event.event_id)
    job = msgspec.structs.replace(
        job,
        begun_us=start_us,
        begun_inferred=inferred,
        nodes_started=job.nodes_started + first,
        first_facts=_first_register(job.first_facts, stamp, facts),
    )
    return job, part


def _finished(job: Job, part: NodeRun, event: Event) -> tuple[Job, NodeRun]:
    facts = event.facts or JobFacts()
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
        told_end_us=larger(job.told_end_us, event.time_us),
        outcome=register,
        last_facts=_first_register(job.last_facts, stamp, facts),
    )
    return job, part


def _closed_on_node(job: Job, part: NodeRun, event: Event) -> tuple[Job, NodeRun]:
    """A node's part is over by inference."""
    assert event.closing is not None
    not_before_us = event.closing.not_before_us
    closing = NodeClosing(event.time_us, not_before_us, event.closing.reason)
    part = msgspec.structs.replace(part, closings=tuple(sorted({*part.closings, closing})))
    job = msgspec.structs.replace(
        job,
        closed_us=larger(job.closed_us, event.time_us),
        closed_not_before_us=larger(job.closed_not_before_us, not_before_us),
    )
    return job, part


def _disproved(part: NodeRun) -> NodeRun:
    """The part by those of its closings that no later sample of processes disproves; the earliest latest end holds.

    A cgroup without processes may stay for long after the job, as when a slurmstepd was killed.
    """
    alive_us = None if part.usage is None else part.usage.last_alive_us
    held = [closing for closing in part.closings if alive_us is None or alive_us <= closing.time_us]
    return msgspec.structs.replace(
        part,
        closed_us=min((closing.time_us for closing in held), default=None),
        closed_not_before_us=max((closing.not_before_us for closing in held), default=None),
        closed_because=min((closing.reason for closing in held), default=None),
    )


def _counted(job: Job, before: NodeRun, after: NodeRun) -> Job:
    """The job after one node's part went from `before` to `after`: what it sums up over its nodes."""
    told, was_told = after.ended_us is not None, before.ended_us is not None
    closed, was_closed = not told and after.closed_us is not None, not was_told and before.closed_us is not None
    return msgspec.structs.replace(
        job,
        window_us=job.window_us + _window(after) - _window(before),
        nodes_ended=job.nodes_ended + (told or closed) - (was_told or was_closed),
        nodes_told=job.nodes_told + told - was_told,
        told_on=_member(job.told_on, after.node, is_in=told),
        closed_on=_member(job.closed_on, after.node, is_in=closed),
    )


def _member(names: tuple[str, ...], name: str, *, is_in: bool) -> tuple[str, ...]:
    """The sorted names, with that one or without."""
    if (name in names) is is_in:
        return names
    return tuple(sorted({*names} ^ {name}))


def _closed(job: Job, event: Event) -> Job:
    """The whole run is over by inference."""
    assert event.closing is not None
    register = ClosingRegister(stamp=Stamp(0, event.time_us, event.event_id), closing=event.closing)
    held = {closing.stamp: closing for closing in (*job.closings, register)}
    return msgspec.structs.replace(job, closings=tuple(held[stamp] for stamp in sorted(held)))


def _reported(job: Job, event: Event) -> Job:
    """Slurm's word: of each of its parts the final record counts, else the latest."""
    assert event.slurm is not None
    said = {word.record.origin: word for word in job.words}
    word = Word(stamp=Stamp(int(event.slurm.is_final), event.time_us, event.event_id), record=event.slurm)
    held = said.get(event.slurm.origin)
    if held is None or held.stamp < word.stamp:
        said[event.slurm.origin] = word
    return msgspec.structs.replace(job, words=tuple(said[origin] for origin in sorted(said)))


def _said(job: Job, event: Event) -> Job:
    """A person's word."""
    held = PeoplesWord() if job.people is msgspec.UNSET else job.people
    return msgspec.structs.replace(job, people=told_by_person(held, event))


def _used(job: Job, part: NodeRun, event: Event) -> tuple[Job, NodeRun]:
    merged = merge_reports(part.usage, event.usage or NodeUsage())
    job = msgspec.structs.replace(
        job,
        usage=replace_in_total(job.usage, part.usage, merged),
        nodes_reporting=job.nodes_reporting + (part.usage is None),
    )
    return job, msgspec.structs.replace(part, usage=merged)


def _window(part: NodeRun) -> int:
    if part.started_us is None or part.over_us is None:
        return 0
    return max(0, part.over_us - part.started_us)


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


def _derived(job: Job) -> Job:
    """The job with what follows from its reports: state, verdict, start and end."""
    start_us, start_inferred = _start(job)
    alive_us = job.alive_us
    closing = next((one for one in job.closings if alive_us is None or alive_us <= one.stamp.time_us), None)
    job = msgspec.structs.replace(job, start_us=start_us, start_inferred=start_inferred, closing=closing)
    ruling = job.ruling
    end_us, end_inferred = _end(job) if job.is_over else (None, False)
    not_before_us = _not_before(job) if end_inferred else None
    if end_us is not None and end_us < (start_us or 0) and job.by_people is None:
        # The clock was set back in between. How long it ran nobody knows, so the end counts as inferred.
        end_us, end_inferred, not_before_us = start_us, True, end_us
    return msgspec.structs.replace(
        job,
        state=ruling.state,
        verdict=ruling.verdict,
        state_confirmed=ruling.confirmed,
        end_us=end_us,
        end_inferred=end_inferred,
        end_not_before_us=not_before_us,
    )


def _start(job: Job) -> tuple[int | None, bool]:
    """The first node's start, exact where a prolog told it; Slurm's own where none did; people's of a manual job."""
    if (standing := job.by_people) is not None:
        return standing.start_us, standing.start_inferred
    if job.begun_us is not None and not job.begun_inferred:
        return job.begun_us, False
    started = [_start_of(word.record) for word in job.words]
    told = min((start for start in started if start is not None), default=None)
    return (job.begun_us, job.begun_inferred) if told is None else (told, False)


def _start_of(record: SlurmRecord) -> int | None:
    """The record's start in µs; of a job that was cancelled before it ran, accounting gives the end as start."""
    never_had_nodes = record.facts.nodes is None and record.facts.node_list is None
    if record.start_time is None or record.is_pending or (record.is_final and never_had_nodes):
        return None
    return record.start_time * 1_000_000


def _end(job: Job) -> tuple[int | None, bool]:
    """The last node's end; Slurm's where no node told one, or one long after; else the latest it can have been."""
    if (standing := job.by_people) is not None:
        return standing.end_us, standing.end_inferred
    final = job.final_word
    if final is not None and final.end_time is not None:
        slurm_us = final.end_time * 1_000_000
        if job.told_end_us is not None and job.told_end_us <= slurm_us + LATE_EPILOG_US:
            return (job.told_end_us if job.all_told else max(job.told_end_us, slurm_us)), False
        return max(slurm_us, job.start_us or 0), False  # whole seconds: a short run would end before it began
    if job.told_end_us is not None and (job.all_told or _sender_knows(job)):
        return job.told_end_us, False
    closed = [job.told_end_us, job.closed_us, job.closing.stamp.time_us if job.closing else None]
    return max((time_us for time_us in closed if time_us is not None), default=None), True


def _sender_knows(job: Job) -> bool:
    return job.outcome is not None and job.outcome.confirmed


def _not_before(job: Job) -> int | None:
    if job.by_people is not None:
        return job.start_us
    closed = [job.told_end_us, job.closed_not_before_us, job.closing.closing.not_before_us if job.closing else None]
    return max((time_us for time_us in closed if time_us is not None), default=None)


_OF_A_NODE: Mapping[EventKind, Callable[[Job, NodeRun, Event], tuple[Job, NodeRun]]] = MappingProxyType(
    {
        EventKind.JOB_STARTED: _started,
        EventKind.JOB_FOUND: _started,
        EventKind.JOB_FINISHED: _finished,
        EventKind.CHECKPOINT: _used,
        EventKind.USAGE_RECORDED: _used,
        EventKind.JOB_CLOSED: _closed_on_node,
    }
)
_OF_THE_RUN: Mapping[EventKind, Callable[[Job, Event], Job]] = MappingProxyType(
    {
        EventKind.JOB_CLOSED: _closed,
        EventKind.SLURM_REPORTED: _reported,
        EventKind.COMMENT_WRITTEN: lambda job, _: job,  # it says of the job what the job said
        **dict.fromkeys(PERSONS_KINDS, _said),
    }
)
_LACKING: Mapping[EventKind, str] = MappingProxyType(
    {EventKind.JOB_CLOSED: "closing", EventKind.SLURM_REPORTED: "slurm", EventKind.COMMENT_WRITTEN: "note"}
)
