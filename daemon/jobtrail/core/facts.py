"""What the daemon tells about itself, as typed facts. One observer turns each into one log line and one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all facts."""


class EventAccepted(Fact, frozen=True, kw_only=True):
    """An event is durably held."""

    kind: str
    event_id: str
    job_id: str | None
    seq: int
    duplicate: bool = False


class EventRejected(Fact, frozen=True, kw_only=True):
    """What was sent was refused. `reason` is one of a fixed set, `detail` is for the log only."""

    reason: str  # invalid | conflict | too_large | forbidden | spool_full | timeout | unknown_hook
    detail: str = ""
    noticed: bool = False  # a SecurityNoticed tells the same


class SecurityNoticed(Fact, frozen=True, kw_only=True):
    """Somebody was turned away who should not have come. `repeated`: the same within a minute, or one of too many."""

    what: str  # one of WHATS of core.security
    who: str
    peer: str
    detail: str
    repeated: bool = False


class IncomingTaken(Fact, frozen=True, kw_only=True):
    """A file that a hook had left in the spool directory was taken in."""

    event_id: str
    name: str


class IncomingQuarantined(Fact, frozen=True, kw_only=True):
    """A file in the spool directory is no event; it was moved aside, never deleted."""

    name: str
    reason: str


class DroppedReportTaken(Fact, frozen=True, kw_only=True):
    """A report of a benchmark that a user had left as a file was taken in."""

    name: str
    uid: int
    event_id: str


class DroppedReportRefused(Fact, frozen=True, kw_only=True):
    """What a user left among the reports of benchmarks is none, and was removed. `detail` is for the log only."""

    name: str
    uid: int
    reason: str  # no_report | conflict | not_regular | linked | too_large | name | unreadable | owner | abandoned
    detail: str


class EventsForwarded(Fact, frozen=True, kw_only=True):
    """A batch reached the store.

    The first after some that did not is told at info.
    """

    stored: int
    replayed: int
    seconds: float


class ForwardFailed(Fact, frozen=True, kw_only=True):
    """A batch did not reach the store; it is tried again after `retry_in_seconds`.

    Of a node that forwards to servers the line is `server not reached`.
    """

    reason: str
    retry_in_seconds: float


class ForwardConflict(Fact, frozen=True, kw_only=True):
    """The store holds another event under this chain and sequence number: tampering or a forked chain."""

    seq: int


class ChainGivenUp(Fact, frozen=True, kw_only=True):
    """The store's copy of this node's chain and the chain itself cannot be brought together: a new one begins."""

    reason: str  # set_back | purged | another_row
    detail: str


class ProjectionRefused(Fact, frozen=True, kw_only=True):
    """The trail has the event and the projection could not take it."""

    seq: int
    reason: str


class JobSampled(Fact, frozen=True, kw_only=True):
    """Readings of a tick."""

    readings: int
    seconds: float


class ReadingMissed(Fact, frozen=True, kw_only=True):
    """A job gave no reading."""

    job_id: str
    reason: str
    detail: str = ""


class SampleSourceFailed(Fact, frozen=True, kw_only=True):
    """A whole source failed in a tick."""

    source: str
    reason: str


class SamplesWritten(Fact, frozen=True, kw_only=True):
    """Readings reached the store."""

    rows: int
    seconds: float


class SamplesDropped(Fact, frozen=True, kw_only=True):
    """Readings were shed because the store was away too long."""

    rows: int


class SamplesThinned(Fact, frozen=True, kw_only=True):
    """Of readings that wait for the store, every so many were given up so that the others reach further back."""

    rows: int


class GapRecorded(Fact, frozen=True, kw_only=True):
    """What was given up for want of room is on record in the trail.

    With an empty `shed`, that it is over.
    """

    shed: Mapping[str, int]


class JobAdopted(Fact, frozen=True, kw_only=True):
    """A running job was found at start: in the spool, or as a cgroup no prolog had announced."""

    job_id: str
    found_by: str  # spool | cgroup_scan


class SeriesShed(Fact, frozen=True, kw_only=True):
    """Jobs are left off /metrics because the cap on jobs was reached."""

    jobs: int


class PartitionsKept(Fact, frozen=True, kw_only=True):
    """Sample partitions were made ahead and old ones dropped."""

    created: int
    dropped: int


class SecurityPruned(Fact, frozen=True, kw_only=True):
    """Security events older than they are kept were removed."""

    rows: int


class ChoreFailed(Fact, frozen=True, kw_only=True):
    """A regular chore could not be done; it is tried again at its next turn."""

    reason: str


class SlurmAskFailed(Fact, frozen=True, kw_only=True):
    """Slurm was asked and did not answer; it is asked again."""

    question: str  # jobs | accounting | nodes
    reason: str


class SlurmAnswered(Fact, frozen=True, kw_only=True):
    """Slurm was asked and answered."""

    question: str  # jobs | accounting | nodes
    records: int


class SlurmRecordUnreadable(Fact, frozen=True, kw_only=True):
    """One record of an answer could not be understood; the others were."""

    path: str
    reason: str


class RunReconciled(Fact, frozen=True, kw_only=True):
    """Slurm's word on a run was sent."""

    job_id: str
    run: int | None
    state: str | None
    origin: str


class RunClosed(Fact, frozen=True, kw_only=True):
    """A run whose end nobody had reported was closed."""

    job_id: str
    reason: str


class GpusLooked(Fact, frozen=True, kw_only=True):
    """All GPUs of a vendor were looked at."""

    vendor: str
    gpus: int
    seconds: float


class GpuLookFailed(Fact, frozen=True, kw_only=True):
    """Nothing could be read of a vendor's GPUs. `repeated`: for the same reason as the time before."""

    vendor: str
    reason: str
    detail: str = ""
    repeated: bool = False


class GpuValueAbsent(Fact, frozen=True, kw_only=True):
    """A value of a GPU cannot be read; told once of each GPU, value and reason."""

    vendor: str
    gpu_id: str
    value: str
    reason: str


class GpuErrorsTold(Fact, frozen=True, kw_only=True):
    """The driver told errors of a GPU since the look before. `code`: for NVIDIA an XID."""

    vendor: str
    gpu_id: str
    code: int
    times: int


class GpuMismatch(Fact, frozen=True, kw_only=True):
    """A job's process is on a GPU the job does not hold; told once of each job and GPU."""

    job_id: str
    gpu_id: str
    kind: str  # not_held | held_by_another
    detail: str


class BenchmarkSettled(Fact, frozen=True, kw_only=True):
    """All that can be known of a benchmark's run is: its jobs, and their energy. `link` is the best of its links."""

    run_uid: str
    link: str  # linked | conflict | none
    reason: str = ""


class BenchmarkJudged(Fact, frozen=True, kw_only=True):
    """A gated metric of a run has a verdict it did not have before."""

    run_uid: str
    metric: str
    stat: str
    verdict: str  # ok | suspect | regression | improvement | suspect_improvement | insufficient
    relative_change: float | None = None
    confirmed_by: str | None = None


class BenchmarkRefused(Fact, frozen=True, kw_only=True):
    """The store did not take what was worked out of a run; the others were."""

    run_uid: str
    reason: str


class BenchmarksNotSettled(Fact, frozen=True, kw_only=True):
    """The store is away: links, energy and verdicts of new runs wait. `repeated`: as the time before."""

    reason: str
    repeated: bool = False


class BenchmarkSeriesShed(Fact, frozen=True, kw_only=True):
    """Benchmarks are left off /metrics because the cap on their series was reached."""

    series: int


class ServerAsked(Fact, frozen=True, kw_only=True):
    """This node asked a server to take something. `outcome` is one of a fixed set, `detail` is for the log only."""

    server: str
    what: str  # head | events | job_samples | gpu_samples | energy_samples | over_runs
    outcome: str  # ok | gap | refused | denied | busy | unavailable | timeout | unreachable | tls | credentials | odd
    seconds: float
    sent_bytes: int = 0
    detail: str = ""


class NodeServed(Fact, frozen=True, kw_only=True):
    """A node that forwards to this server was answered. `node` is empty where it is not known who asked."""

    node: str
    what: str  # as of ServerAsked
    status: int
    rows: int
    seconds: float
    detail: str = ""


class NodeContradicted(Fact, frozen=True, kw_only=True):
    """A node spoke in another node's name, and was refused."""

    node: str  # who sent, by what it showed
    claimed: str
    what: str  # chain | event | sample | run
    peer: str = ""  # address it came from


class AdminCommentDone(Fact, frozen=True, kw_only=True):
    """Nothing more is done about the AdminComment of a run.

    `result`: written; found (ours, of before), left (somebody else's), superseded (a later run has taken its place in
    accounting), failed (given up after several tries).
    """

    job_id: str
    run: int
    result: str


class AdminCommentsRefused(Fact, frozen=True, kw_only=True):
    """Slurm's accounting takes no AdminComments now. `repeated`: as the time before."""

    reason: str
    repeated: bool = False


Observer = Callable[[Fact], None]
