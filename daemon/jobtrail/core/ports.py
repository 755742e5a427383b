"""Ports: what core needs of the world. Adapters implement them; the tests ship in-memory ones (`tests/fakes.py`).

Names say what the thing is for, not what it is made of. Each port's promises are held by a contract test that runs on
the fake and on the real adapter alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NoReturn, Protocol

import msgspec

from jobtrail.domain.audit import ChainedEvent, ChainHead
from jobtrail.domain.checkpoints import Anchor
from jobtrail.domain.energy import EnergyReading
from jobtrail.domain.events import Event, NodeUsage
from jobtrail.domain.gpu_allocation import HookValues
from jobtrail.domain.gpus import GpuLook
from jobtrail.domain.job import Job
from jobtrail.domain.samples import CpuTotals, FoundJob, Missed, NodeReading, Reading, Target
from jobtrail.domain.slurm import NodeRecord, SlurmAnswer

Row = dict[str, Any]


class OpenRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that began on this node and has not ended there, kept with the events in one transaction."""

    target: Target
    started_us: int
    user_name: str | None = None
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    found: bool = False
    boot_id: str | None = None  # the kernel's, when the run began here; another one means the node has rebooted since
    slurm_start_time: int | None = None  # Unix seconds; the same in one run's prolog and epilog
    usage: NodeUsage | None = None  # of the last checkpoint, so that a restarted daemon counts on
    gpu_hook: HookValues | None = (
        None  # what the hook said of GPUs; None where no hook spoke, as of a run that was found
    )
    slurm_conf: str | None = None  # the hook's SLURM_CONF: gres.conf lies beside it


def is_of_an_earlier_run(event: Event, run: OpenRun) -> bool:
    """Whether `event` speaks of a run of the job that came before `run`, which is open on this node.

    Slurm's start time decides where both have it. Else the time does: an epilog that was left as a file while the
    daemon was down can come in after the next run's prolog.
    """
    if run.found:
        return False
    if event.slurm_start_time is not None and run.slurm_start_time is not None:
        return event.slurm_start_time < run.slurm_start_time
    return event.time_us < run.started_us


def is_of_a_later_run(event: Event, run: OpenRun) -> bool:
    """Whether Slurm's start time shows that `event` speaks of a run of the job that came after `run`."""
    if event.slurm_start_time is None or run.slurm_start_time is None:
        return False
    return event.slurm_start_time > run.slurm_start_time


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that an event is held. `durability` is `disk` when flushed to a disk, `volatile` on tmpfs and the like."""

    event_id: str
    seq: int
    durability: str
    duplicate: bool = False
    opened: OpenRun | None = None
    closed: OpenRun | None = None
    inferred: Event | None = None  # the end of the run before, which this start shows; held with it


class SpoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The spool's figures, held in memory so that reading them costs nothing."""

    chain_id: str
    durability: str
    head_seq: int
    forwarded_seq: int
    bytes_used: int
    bytes_limit: int
    oldest_unforwarded_us: int | None
    refused: int = 0
    purged_early: int = 0  # forwarded events that gave way before their time, since the start
    files_ended: int = 0  # kept beside the spool, of chains that were given up
    files_damaged: int = 0  # kept beside the spool, of files that were damaged

    @property
    def depth(self) -> int:
        """Events not yet forwarded."""
        return self.head_seq - self.forwarded_seq


class EventSpool(Protocol):
    """The durable queue on this node: appends survive a power cut before `append` returns."""

    async def append(self, event: Event, digest: bytes) -> Receipt:
        """Hold `event`; `digest` is of what was sent, so that a retry is told from a conflict.

        Raises EventConflict, SpoolFull, SpoolBroken.
        """
        ...

    async def read_after(self, seq: int, *, limit: int, max_bytes: int) -> Sequence[ChainedEvent]:
        """Up to `limit` events after `seq` in order, at least one if there is one, about `max_bytes` of payload."""
        ...

    async def mark_forwarded(self, seq: int) -> None:
        """The store holds everything up to `seq`. May go back when a restored store holds less than before."""
        ...

    async def record_refusal(self, seq: int, reason: str) -> None:
        """Keep on record that the store refused the projection of event `seq`."""
        ...

    async def give_up_chain(self, after_seq: int, reason: str) -> NoReturn:
        """End this chain for good: the events after `after_seq` begin a new one, which names the old one's end.

        Never returns: raises SpoolBroken once that is held, as the new chain begins with the daemon's next start;
        SpoolFull where there is no room to hold it.
        """
        ...

    async def open_runs(self) -> Sequence[OpenRun]:
        """The runs that began on this node and have not ended."""
        ...

    async def wait_beyond(self, seq: int) -> None:
        """Return when the head is beyond `seq`."""
        ...

    def status(self) -> SpoolStatus:
        """Figures as of the last commit; never blocks."""
        ...


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the store did with a batch."""

    head: ChainHead
    stored: int = 0
    replayed: int = 0
    conflicts: tuple[int, ...] = ()  # sequence numbers held with another hash; on record in the store
    unapplied: Mapping[int, str] = {}  # sequence number -> why the trail has it and the projection does not
    anchor: Anchor | None = None  # what is sealed of the store's trail; None before the first checkpoint
    store_time_us: int | None = None  # the store's own clock while it answered; None where it does not tell


TRAIL_ONLY = "the projection refused it; kept in the trail only"


class EventSink(Protocol):
    """The central store of the trail and its projection."""

    async def head(self, chain_id: str) -> ChainHead:
        """The last row of this chain the store holds. Raises StoreUnavailable."""
        ...

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        """Store a batch of one chain, in order, in one transaction: trail rows and projection.

        `trail_only` stores the rows and leaves the projection alone, for an event whose projection was refused: it is
        the reason that the trail gives, which is never erased.
        Raises StoreUnavailable (retry), ChainGap (resume elsewhere), StoreRefused (never retry this batch as it is).
        """
        ...


class SampleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One reading with what identifies its job."""

    cluster: str
    job_id: str
    node: str
    ref: str
    reading: Reading
    cpu_percent: float | None = None


class SampleSink(Protocol):
    """Where readings are kept for a while."""

    async def write(self, rows: Sequence[SampleRow]) -> int:
        """Store `rows`; how many were taken, the others being told as dropped. Raises StoreUnavailable."""
        ...


class UsageSource(Protocol):
    """Reads resource counters of jobs. Blocking: the sampler calls it in a worker thread, one call a tick."""

    def attach(self, target: Target) -> None:
        """Begin with a run; nothing is read yet and nothing need exist yet."""
        ...

    def detach(self, ref: str) -> None:
        """Be done with a run and let its file descriptors go. Unknown refs are ignored."""
        ...

    def read(self, refs: Iterable[str]) -> dict[str, Reading | Missed]:
        """One look at each of `refs`."""
        ...

    def cpu_totals(self, refs: Iterable[str]) -> CpuTotals:
        """The CPU counters of `refs` and of their common parent, read back to back."""
        ...

    def scan(self) -> Sequence[FoundJob]:
        """Jobs whose cgroups lie on this node."""
        ...


class NodeSource(Protocol):
    """Reads the node's own counters. Blocking, as UsageSource."""

    def read_node(self) -> NodeReading:
        """One look at the node."""
        ...


class Clock(Protocol):
    """Wall and steady time."""

    def time_us(self) -> int:
        """Wall clock, µs since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class EventIntake(Protocol):
    """The one way in for events."""

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        """Hold `event` durably and let it take effect; `digest` is SHA-256 of what was sent.

        Raises EventConflict, SpoolFull, SpoolBroken.
        """
        ...


class HookDecoder(Protocol):
    """Turns what a hook sent into an event."""

    def __call__(self, hook: str, body: bytes, *, event_id: str, time_us: int) -> Event:
        """The event in a hook's environment. Raises InvalidEvent naming the variable."""
        ...


class PokeAnswer(StrEnum):
    """What came of asking for a look at a job."""

    LOOKED = "looked"
    TOO_SOON = "too_soon"  # this job was looked at just now, several times
    BUSY = "busy"  # too many jobs are being looked at, or the counters take too long to answer
    NOT_YOURS = "not_yours"  # no such job of this user is open on this node


class JobPokes(Protocol):
    """Takes the word of a job's own task that now is the moment for a look at the job's counters."""

    async def poke(self, job_id: str, uid: int) -> PokeAnswer:
        """Have a job's counters read, if it is `uid`'s and not asked for too often. Takes half a second at most."""
        ...


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the daemon can do its work now. `problems` and `warnings` are sentences for people, `details` figures for
    machines. A warning is of what should be mended and keeps the daemon from nothing."""

    ready: bool
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: Mapping[str, int | float | str | bool | None] = {}


class CentralStore(Protocol):
    """What the server role asks of the store beside events and samples."""

    async def keep_partitions(self, *, days_ahead: int, retention_days: int) -> tuple[int, int]:
        """Make sample partitions ahead, drop those past retention; how many of each. Raises StoreUnavailable."""
        ...

    async def count_states(self) -> Mapping[str, int]:
        """Jobs now in each state, all clusters together. Raises StoreUnavailable."""
        ...

    async def suspended_jobs(self, *, most: int) -> Sequence[tuple[str, str]]:
        """Cluster and id of jobs that Slurm last said were suspended or stopped, the newest first.

        Raises StoreUnavailable.
        """
        ...


class Leadership(Protocol):
    """Which of several daemons does what needs doing once for a cluster. Never do two hold it at a time.

    A holder that is cut off from the store learns of it at its next question, and another takes over within seconds; so
    what a holder does between two questions may overlap with what the next one does.
    """

    async def held(self) -> bool:
        """Whether this daemon holds it now; takes it if nobody does. Raises StoreUnavailable: then it holds nothing."""
        ...

    async def release(self) -> None:
        """Let another have it. A later `held` competes anew. Never raises."""
        ...


class NodeStore(Protocol):
    """Where the last known state of each node is kept."""

    async def write_nodes(self, cluster: str, nodes: Sequence[NodeRecord], *, asked_us: int) -> None:
        """Replace what is held of a cluster's nodes by what Slurm said when asked at `asked_us`.

        A node that is not among `nodes` is held no longer. An answer older than the one that is held changes nothing.
        Raises StoreUnavailable, StoreRefused.
        """
        ...


class RunStore(Protocol):
    """The runs of the store that Slurm is still to be asked about. Every method raises StoreUnavailable."""

    async def unsettled(self, cluster: str, *, limit: int) -> Sequence[Job]:
        """Runs Slurm said nothing of yet, ended ones it has not confirmed, and those whose usage it may know better.

        Those whose usage alone is awaited come last; of both kinds the newest first, none older than a week.
        """
        ...

    async def open_runs(self, cluster: str, *, limit: int) -> Sequence[Job]:
        """All runs that are not over, the newest first."""
        ...

    async def runs_of(self, cluster: str, job_ids: Sequence[str]) -> Sequence[Job]:
        """All runs of these jobs, oldest first."""
        ...

    async def only_cluster(self) -> str | None:
        """The cluster of all runs of the last week that Slurm is to be asked about; None when of no one cluster."""
        ...


class SlurmController(Protocol):
    """What slurmctld knows now. Implementations keep to a pace that does not burden it, and wait where asked too soon.

    Every method raises SlurmUnavailable (no answer, or none that makes sense now: try later), SlurmDenied (the token or
    the user is refused) and SlurmAnswerInvalid (an answer of unknown shape, naming the path of the field).
    """

    async def current_jobs(self) -> SlurmAnswer:
        """The newest run of every job slurmctld holds: pending, running, and ended less than MinJobAge ago."""
        ...

    async def job(self, number: int) -> SlurmAnswer:
        """The newest run of one job; no records when slurmctld does not know it (any more)."""
        ...

    async def nodes(self) -> Sequence[NodeRecord]:
        """Every node of the cluster."""
        ...


class SlurmAccounting(Protocol):
    """What accounting holds: every run of a job, also of requeued ones. Raises as SlurmController does."""

    async def runs_of(self, numbers: Sequence[int], *, since: int) -> SlurmAnswer:
        """All runs of these jobs that were not over before `since` (Unix seconds), in as few questions as possible."""
        ...


class GpuSource(Protocol):
    """Reads the GPUs of one vendor. A driver that hangs, crashes or is missing costs the values, never the daemon."""

    async def look(self) -> GpuLook:
        """One look at all GPUs, within its deadline; what cannot be read is absent, with the reason. Never raises."""
        ...

    async def close(self) -> None:
        """Let the driver go, so that it can be unloaded. A later look begins anew."""
        ...


class EnergySource(Protocol):
    """Reads counters of the energy that parts of the node have used. Blocking: called in a worker thread."""

    def read_energy(self) -> EnergyReading:
        """One look at all counters."""
        ...
