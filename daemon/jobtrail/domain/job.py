"""The projection: what the trail says about one run of one job."""

from __future__ import annotations

import msgspec

from jobtrail.domain.claims import is_manual
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.people import PeoplesWord, Signed, Standing, facts_by_people, standing_of
from jobtrail.domain.registers import (
    CLOCK_SKEW_US,
    ClosingRegister,
    FactsRegister,
    NodeClosing,
    OutcomeRegister,
    Word,
)
from jobtrail.domain.slurm import Origin, SlurmRecord
from jobtrail.domain.states import State, Verdict
from jobtrail.domain.usage import is_estimated, larger, smaller, with_accounting
from jobtrail.domain.verdicts import Ruling, final_word, rule

# Whose word on the job's metadata counts most: the controller knows what accounting does not, as the work directory.
_INFORMED = (Origin.SLURMCTLD, Origin.SLURMDBD, Origin.SACCT, Origin.CONTROLLER_HOOK)

_FACTS = JobFacts.__struct_fields__


# Of a job in COMPLETING slurmctld counts the nodes whose epilogs still run (`nodes_completing` in its job_mgr.c).
_OF_ALL_NODES = ("nodes", "node_list", "cpus_total", "gpus_total", "memory_requested_bytes")

# In these the job's own processes are done, though the run still holds its nodes.
_ENDING = frozenset({"COMPLETING", "STAGE_OUT"})


def _facts_in(record: SlurmRecord) -> JobFacts:
    if "COMPLETING" not in (record.state, *record.flags):
        return record.facts
    return msgspec.structs.replace(record.facts, **dict.fromkeys(_OF_ALL_NODES))


class NodeRun(msgspec.Struct, frozen=True, kw_only=True):
    """One node's part of a run. What `closed_*` say follows from `closings` and `usage`."""

    node: str
    started_us: int | None = None
    ended_us: int | None = None  # as the node's epilog or the sender told it
    closed_us: int | None = None  # by inference: the latest the end can have been
    closed_not_before_us: int | None = None
    closed_because: str | None = None
    opened_by: str | None = None
    also_opened_by: tuple[str, ...] = ()  # other reports of the same beginning, such as a guess that was confirmed
    found: bool = False  # begun without a start event; its beginning is when it was found
    cpus: int | None = None
    usage: NodeUsage | None = None
    closings: tuple[NodeClosing, ...] = ()  # all that were inferred, also those that a later sample disproves

    @property
    def over_us(self) -> int | None:
        """When the node's part was over: as told, unless it was seen to be over before.

        The epilog of a node that was away comes when its slurmd is back, be it hours after the job's processes died.
        """
        return smaller(self.ended_us, self.closed_us)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job, as stored in table `jobs`. Times in µs since the epoch; None is unknown, never zero.

    The fields up to `end_not_before_us`, and `closing`, follow from the others.
    """

    cluster_name: str
    job_id: str
    run: int
    correlation_id: str
    state: State = State.PENDING
    verdict: Verdict | None = None
    state_confirmed: bool = False
    start_us: int | None = None
    start_inferred: bool = False
    end_us: int | None = None  # None while the run goes on
    end_inferred: bool = False
    end_not_before_us: int | None = None  # of an inferred end: the earliest it can have been
    slurm_start_time: int | None = None
    sluid: str | None = None
    begun_us: int | None = None  # the first node's start
    begun_inferred: bool = False
    told_end_us: int | None = None  # the last end a node told
    closed_us: int | None = None  # the last end inferred for a node
    closed_not_before_us: int | None = None
    nodes_started: int = 0
    nodes_ended: int = 0  # told or inferred
    nodes_told: int = 0  # of these, told
    nodes_reporting: int = 0
    window_us: int = 0  # summed over the nodes that started and ended: end minus start
    cpus_allocated: int | None = None
    first_facts: FactsRegister | None = None
    last_facts: FactsRegister | None = None
    outcome: OutcomeRegister | None = None
    closing: ClosingRegister | None = None  # that of `closings` which holds
    closings: tuple[ClosingRegister, ...] = ()  # all of the whole run, also those that later evidence of life disproves
    told_on: tuple[str, ...] = ()  # the nodes whose end was told
    closed_on: tuple[str, ...] = ()  # and those whose end is inferred only
    words: tuple[Word, ...] = ()  # one for each part of Slurm that spoke, by origin
    usage: NodeUsage | None = None
    people: PeoplesWord | msgspec.UnsetType = msgspec.UNSET  # left out where nobody said anything

    @property
    def by_people(self) -> Standing | None:
        """How a job stands that people alone tell of; None for any other."""
        if not is_manual(self.job_id):
            return None
        return standing_of(PeoplesWord() if self.people is msgspec.UNSET else self.people)

    @property
    def withdrawn(self) -> Signed | None:
        """That the job was taken back, and by whom; None while it stands."""
        return None if self.people is msgspec.UNSET else self.people.withdrawn

    @property
    def facts(self) -> JobFacts:
        """What is known of the job: people's remarks, Slurm's own word, then the start's, then the end's."""
        merged = JobFacts()
        for known in self._said():
            missing = {name: getattr(known, name) for name in _FACTS if getattr(merged, name) is None}
            merged = msgspec.structs.replace(merged, **missing)
        # Once slurmctld has requeued the job, it and the epilog already count the next restart; nobody counts too low.
        counts = [known.restart_count for known in self._said() if known.restart_count is not None]
        return msgspec.structs.replace(merged, restart_count=min(counts, default=None))

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes of the run, the batch host first; empty while unknown."""
        return next((known.nodes for known in self._said() if known.nodes is not None), ())

    @property
    def named_by_slurm(self) -> frozenset[str]:
        """The nodes that Slurm's controller or its accounting names as the run's; empty while neither did.

        What slurmctld's hooks say does not count: they are told through nodes.
        """
        records = [word.record for word in self.words if word.record.origin is not Origin.CONTROLLER_HOOK]
        said = [_facts_in(record).nodes or () for record in records if not record.is_pending]
        return frozenset(node for nodes in said for node in nodes)

    def _said(self) -> list[JobFacts]:
        """All facts about the job, those that count most first."""
        said = {word.record.origin: _facts_in(word.record) for word in self.words}
        facts = [] if self.people is msgspec.UNSET else [facts_by_people(self.people)]
        facts += [said[origin] for origin in _INFORMED if origin in said]
        return facts + [register.facts for register in (self.first_facts, self.last_facts) if register is not None]

    @property
    def final_word(self) -> SlurmRecord | None:
        """Slurm's final record of the run by its best authority; None while none is there."""
        return final_word(self.words)

    @property
    def accounted(self) -> SlurmRecord | None:
        """Accounting's record of the ended run with its CPU time; None while there is none."""
        final = [word.record for word in self.words if word.record.is_final]
        records = [record for record in final if record.cpu_usage_us is not None]
        return min(records, key=lambda record: tuple(Origin).index(record.origin), default=None)

    @property
    def total_usage(self) -> NodeUsage | None:
        """Usage over all nodes that reported, completed by Slurm's accounting where it knows more."""
        record = self.accounted
        if record is None:
            return self.usage
        return with_accounting(
            self.usage,
            cpu_usage_us=record.cpu_usage_us,
            memory_peak_bytes=record.memory_peak_bytes,
            # Of several nodes one may have told of its final usage and another of a checkpoint only.
            complete=self.nodes_expected == self.nodes_reporting == 1,
        )

    @property
    def awaits(self) -> str | None:
        """What Slurm is still to be asked about the run; None if nothing.

        `facts`: it goes on, and Slurm said nothing of it yet. `end`: it goes on. `outcome`: it is over, unconfirmed.
        `usage`: its CPU time is unknown or an estimate, and accounting may know better.
        """
        if not self.job_id.startswith("slurm-"):
            return None
        if not self.is_over:
            return "end" if any(word.record.state is not None for word in self.words) else "facts"
        if not self.state_confirmed:
            return "outcome"
        partly = self.nodes_reporting < self.nodes_expected
        began = self.start_us is not None
        return "usage" if began and self.accounted is None and (partly or is_estimated(self.usage)) else None

    @property
    def submit_time(self) -> int | None:
        """When the run was submitted, or requeued, in Unix seconds, as Slurm says."""
        return max((time for word in self.words if (time := word.record.submit_time) is not None), default=None)

    @property
    def submit_us(self) -> int | None:
        """When the run was submitted, as people or Slurm say; Slurm's is in whole seconds."""
        if (standing := self.by_people) is not None:
            return standing.submit_us
        return None if self.submit_time is None else self.submit_time * 1_000_000

    @property
    def is_over(self) -> bool:
        """Whether every node ended its part, a sender that knows said so, Slurm did, or it was inferred."""
        if (standing := self.by_people) is not None:
            return standing.is_over
        if self.final_word is not None or self.closing is not None:
            return True
        if self.outcome is not None and self.outcome.confirmed:
            return True
        ended = self.nodes_over >= self.nodes_expected or self.only_ends_told
        return ended and not self._goes_on()

    @property
    def only_ends_told(self) -> bool:
        """Whether a node told the run's end, and nobody its beginning.

        Slurm ends a job on all nodes at once, so that it is over, though some of the nodes it lists may stay silent.
        """
        if self.nodes_started or self.told_end_us is None:
            return False
        return not any(word.record.is_running for word in self.words)

    @property
    def nodes_over(self) -> int:
        """How many of the run's nodes ended their part, told or inferred.

        One that a job gave back while it ran (`scontrol update NumNodes`) ends its part, and the run goes on.
        """
        return self.nodes_ended - self._unlisted(self.told_on) - self._unlisted(self.closed_on)

    @property
    def all_told(self) -> bool:
        """Whether every node of the run told its end."""
        return self.nodes_told - self._unlisted(self.told_on) >= self.nodes_expected

    def _unlisted(self, names: tuple[str, ...]) -> int:
        listed = frozenset(self.nodes)
        return sum(name not in listed for name in names) if listed else 0

    def _goes_on(self) -> bool:
        """Whether Slurm says that the run goes on, later than its nodes' ends.

        Accounting may lag behind, so against ends that all nodes told it proves nothing.
        """
        told_us = 0 if self.told_end_us is None else self.told_end_us + CLOCK_SKEW_US
        ended_us, all_told = max(told_us, self.closed_us or 0), self.all_told
        return any(
            word.record.is_running
            and not _ENDING.intersection((word.record.state, *word.record.flags))
            and word.stamp.time_us > ended_us
            and not (all_told and word.record.origin is not Origin.SLURMCTLD)
            for word in self.words
        )

    @property
    def alive_us(self) -> int | None:
        """The last moment at which a sample or Slurm's word showed that the run was on; None if nothing did."""
        spoken_us = max((word.stamp.time_us for word in self.words if word.record.is_running), default=None)
        return larger(spoken_us, None if self.usage is None else self.usage.last_alive_us)

    @property
    def memory_limit_bytes(self) -> int | None:
        """What a node's part of the run may use at most, as its sender says, or as its cgroup had it."""
        told = self.facts.memory_limit_bytes
        return told if told is not None or self.usage is None else self.usage.memory_limit_bytes

    @property
    def nodes_expected(self) -> int:
        """How many nodes have to end the run: those it lists, else those that started it."""
        return len(self.nodes) or max(self.nodes_started, 1)

    @property
    def ruling(self) -> Ruling:
        """State, verdict and exit status, with whose word they rest on."""
        if (standing := self.by_people) is not None:
            return standing.ruling
        begun = bool(self.nodes_started or self.nodes_ended)
        return rule(self.words, self.outcome, begun=begun, over=self.is_over)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A job's run together with those of its node parts that are at hand."""

    job: Job
    nodes: dict[str, NodeRun] = {}
