"""What the nodes of a job tell about it, as events: the stories from which the tests of the projection are made."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from jobtrail.domain.events import Actor, Closing, Event, EventKind, NodeUsage
from jobtrail.domain.job import Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.joining import choose_run
from jobtrail.domain.slurm import Origin, SlurmRecord
from jobtrail.domain.transitions import Rejected, apply, open_run

T0 = 1_760_000_000_000_000  # 2025-10-09T08:53:20Z in µs
SECOND = 1_000_000
CLUSTER, JOB = "c1", "slurm-7"
_ACTORS = {
    EventKind.JOB_STARTED: Actor.SLURM_PROLOG,
    EventKind.JOB_FINISHED: Actor.SLURM_EPILOG,
}


def event(kind: EventKind, node: str, at: int, name: str = "", **fields: Any) -> Event:
    """An event of `node`, `at` µs after T0. `name` makes the event id, so equal names are the same event."""
    identity = uuid.uuid5(uuid.NAMESPACE_OID, name or f"{kind}/{node}/{at}")
    return Event(
        kind=kind,
        event_id=str(identity),
        time_us=T0 + at,
        cluster=CLUSTER,
        job_id=JOB,
        node=node,
        changed_by=fields.pop("changed_by", _ACTORS.get(kind, Actor.COLLECTOR)),
        source="test",
        **fields,
    )


def started(node: str, at: int, name: str = "", *, nodes: Sequence[str] | None = None, **fields: Any) -> Event:
    facts = fields.pop("facts", JobFacts(user_name="ada", cpus=4, nodes=None if nodes is None else tuple(nodes)))
    return event(EventKind.JOB_STARTED, node, at, name, facts=facts, **fields)


def found(node: str, at: int, name: str = "", **fields: Any) -> Event:
    return event(EventKind.JOB_FOUND, node, at, name, facts=JobFacts(uid=1000), **fields)


def finished(
    node: str,
    at: int,
    name: str = "",
    *,
    nodes: Sequence[str] | None = None,
    outcome: Outcome | None = None,
    **more: Any,
) -> Event:
    facts = JobFacts(account="lab", nodes=None if nodes is None else tuple(nodes))
    outcome = Outcome(exit_code=0) if outcome is None else outcome
    return event(EventKind.JOB_FINISHED, node, at, name, facts=facts, outcome=outcome, **more)


def used(node: str, at: int, usage: NodeUsage, name: str = "", *, final: bool = True, **more: Any) -> Event:
    kind = EventKind.USAGE_RECORDED if final else EventKind.CHECKPOINT
    return event(kind, node, at, name, usage=usage, **more)


def tell(events: Iterable[Event]) -> list[Run]:
    """The runs of the one job after `events`, taken in as a store does: by the rules, with one node's part at hand."""
    runs: list[Run] = []
    for one in events:
        chosen = choose_run(runs, one)
        run = chosen or open_run(one.cluster, one.job_id or "", len(runs) + 1)
        at_hand = Run(job=run.job, nodes={node: part for node, part in run.nodes.items() if node == one.node})
        result = apply(at_hand, one, created=chosen is None)
        assert not isinstance(result, Rejected), result.reason
        after = Run(job=result.run.job, nodes={**run.nodes, **result.run.nodes})
        if chosen is None:
            runs.append(after)
        else:
            runs[next(index for index, held in enumerate(runs) if held is chosen)] = after
    return runs


def tell_one(events: Iterable[Event]) -> Run:
    """The one run that `events` make."""
    runs = tell(events)
    assert len(runs) == 1, f"{len(runs)} runs"
    return runs[0]


def reported(
    origin: Origin, at: int, name: str = "", *, run: int | None = None, state: str | None = None, **fields: Any
) -> Event:
    """Slurm's word on a run, `at` µs after T0. Times in `fields` are seconds after T0."""
    times = {key: fields.pop(key) for key in ("submit_time", "start_time", "end_time") if key in fields}
    absolute = {key: None if value is None else T0 // SECOND + value for key, value in times.items()}
    record = SlurmRecord(origin=origin, job_id=JOB, state=state, **absolute, **fields)
    word = event(
        EventKind.SLURM_REPORTED,
        "ctl",
        at,
        name or f"{origin}/{at}/{run}/{state}",
        run=run,
        slurm=record,
        changed_by=Actor.RECONCILER,
    )
    return msgspec.structs.replace(word, source=str(origin), sluid=record.sluid)


def hooked(hook: str, at: int, name: str = "", *, start_time: int | None = None, **fields: Any) -> Event:
    """What slurmctld's `hook` (prolog or epilog) tells; `start_time` is in seconds after T0, from Slurm 23.02 on."""
    outcome = fields.pop("outcome", Outcome(exit_code=0, raw_status=0)) if hook == "epilog" else Outcome()
    start = None if start_time is None else T0 // SECOND + start_time
    record = SlurmRecord(origin=Origin.CONTROLLER_HOOK, job_id=JOB, start_time=start, outcome=outcome, **fields)
    word = event(
        EventKind.SLURM_REPORTED,
        "ctl",
        at,
        name or f"{hook}_slurmctld/{at}",
        slurm=record,
        slurm_start_time=start,
        changed_by=Actor.SLURM_CONTROLLER,
    )
    return msgspec.structs.replace(word, source=f"{hook}_slurmctld", sluid=record.sluid)


def closed(
    node: str, at: int, name: str = "", *, reason: str = "cgroup_gone", not_before: int = 0, **more: Any
) -> Event:
    """That a node's part of a run is over, by inference; with `run`, that the whole run is."""
    whole = "run" in more
    closing = Closing(reason=reason, not_before_us=T0 + not_before, whole_run=whole)
    return event(EventKind.JOB_CLOSED, node, at, name or f"closed/{node}/{at}", closing=closing, **more)
