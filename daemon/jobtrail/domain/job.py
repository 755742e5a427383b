"""The projection: what the trail says about one run of one job."""

from __future__ import annotations

import msgspec

from jobtrail.domain.events import NodeUsage
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.states import State, Verdict


class Stamp(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Orders competing reports of one fact, so that the winner does not depend on their order of arrival."""

    rank: int
    time_us: int
    event_id: str


class FactsRegister(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about the job with the stamp of the report they come from; the smallest stamp wins."""

    stamp: Stamp
    facts: JobFacts


class OutcomeRegister(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome with the stamp of the report it comes from; the smallest stamp wins."""

    stamp: Stamp
    outcome: Outcome
    confirmed: bool


class NodeRun(msgspec.Struct, frozen=True, kw_only=True):
    """One node's part of a run."""

    node: str
    started_us: int | None = None
    ended_us: int | None = None
    opened_by: str | None = None
    also_opened_by: tuple[str, ...] = ()  # other reports of the same beginning, such as a guess that was confirmed
    found: bool = False  # begun without a start event; its beginning is when it was found
    cpus: int | None = None
    usage: NodeUsage | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job, as stored in table `jobs`. Times in µs since the epoch; None is unknown, never zero."""

    cluster_name: str
    job_id: str
    run: int
    correlation_id: str
    state: State = State.PENDING
    verdict: Verdict | None = None
    state_confirmed: bool = False
    slurm_start_time: int | None = None
    sluid: str | None = None
    start_us: int | None = None
    end_us: int | None = None
    start_inferred: bool = False
    nodes_started: int = 0
    nodes_ended: int = 0
    nodes_reporting: int = 0
    window_us: int = 0  # summed over the nodes that started and ended: end minus start
    cpus_allocated: int | None = None
    first_facts: FactsRegister | None = None
    last_facts: FactsRegister | None = None
    outcome: OutcomeRegister | None = None
    usage: NodeUsage | None = None

    @property
    def facts(self) -> JobFacts:
        """What is known of the job: the start's word, and the end's where the start was silent."""
        first = self.first_facts.facts if self.first_facts else JobFacts()
        if self.last_facts is None:
            return first
        last = self.last_facts.facts
        missing = {name: getattr(last, name) for name in first.__struct_fields__ if getattr(first, name) is None}
        return msgspec.structs.replace(first, **missing)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A job's run together with those of its node parts that are at hand."""

    job: Job
    nodes: dict[str, NodeRun] = {}
