"""What Slurm itself says of jobs and nodes, in terms that are the same for every version and interface of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.states import State, Verdict


class Origin(StrEnum):
    """Which part of Slurm speaks, best authority on a run's state first."""

    SLURMDBD = "slurmdbd"  # accounting: one row for each run, also of requeued jobs
    SLURMCTLD = "slurmctld"  # the controller's memory: the newest run, until MinJobAge after its end
    SACCT = "sacct"  # accounting through its command
    CONTROLLER_HOOK = "controller_hook"  # PrologSlurmctld and EpilogSlurmctld: facts and exit status, no state


# Base states (slurm.h, `enum job_states`) of a run that is over, and what they mean here. REQUEUED is what accounting
# calls a run that was taken back into the queue; the job's next run is another row.
FINAL_STATES: Mapping[str, tuple[State, Verdict]] = MappingProxyType(
    {
        "COMPLETED": (State.COMPLETED, Verdict.COMPLETED),
        "FAILED": (State.FAILED, Verdict.FAILED),
        "TIMEOUT": (State.FAILED, Verdict.TIMEOUT),
        "DEADLINE": (State.FAILED, Verdict.TIMEOUT),
        "OUT_OF_MEMORY": (State.FAILED, Verdict.OUT_OF_MEMORY),
        "NODE_FAIL": (State.FAILED, Verdict.NODE_FAIL),
        "BOOT_FAIL": (State.FAILED, Verdict.NODE_FAIL),
        "LAUNCH_FAILED": (State.FAILED, Verdict.FAILED),
        "CANCELLED": (State.CANCELLED, Verdict.CANCELLED),
        "REVOKED": (State.CANCELLED, Verdict.CANCELLED),
        "PREEMPTED": (State.CANCELLED, Verdict.PREEMPTED),
        "REQUEUED": (State.CANCELLED, Verdict.REQUEUED),
    }
)
PENDING_STATES = frozenset(
    {
        "PENDING", "CONFIGURING", "RESIZING", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "REQUEUE_FED",
        "POWER_UP_NODE",
    }
)  # fmt: skip
RUNNING_STATES = frozenset({"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED"})
# The states in which slurmctld ended the run itself: the epilog's exit status then says nothing of the reason.
ENDED_BY_SLURM = frozenset(
    {"CANCELLED", "TIMEOUT", "DEADLINE", "PREEMPTED", "REQUEUED", "NODE_FAIL", "BOOT_FAIL", "REVOKED"}
)


class SlurmRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of one job as one part of Slurm describes it. Absent (None) is what it does not say.

    Times are Unix seconds, Slurm's own resolution. `state` is Slurm's base state in capitals; of a v0.0.38 record that
    shows only COMPLETING it is that. An exit status is given only where the interface tells it truly: slurmdb before
    v0.0.40 and sacct do not (`sacct` prints 255 as 127).
    """

    origin: Origin
    job_id: str  # public id, slurm-<n>
    cluster: str | None = None
    state: str | None = None
    flags: tuple[str, ...] = ()  # state flags beside the base state, such as COMPLETING or REQUEUED
    reason: str | None = None  # StateReason; for people only, it differs between versions
    sluid: str | None = None
    submit_time: int | None = None  # set anew at each requeue: with the job id it names the run
    start_time: int | None = None
    end_time: int | None = None  # when slurmctld heard of the end; None while the run goes on
    facts: JobFacts = msgspec.field(default_factory=JobFacts)
    outcome: Outcome = msgspec.field(default_factory=Outcome)
    cancelled_by_uid: int | None = None
    suspended_seconds: int | None = None
    cpu_usage_us: int | None = None  # all steps, user and system (sacct's TotalCPU)
    memory_peak_bytes: int | None = None  # largest MaxRSS of a task
    out_of_memory_step: bool = False  # a step ended out of memory, whatever became of the job
    node_states: dict[str, str] = {}  # of the run's nodes when the record was made, where it matters (a node's failure)
    array_tasks_pending: str | None = None  # task ids of an array's one record for all its pending tasks, as "2-3%1"

    @property
    def is_final(self) -> bool:
        """Whether the run is over and Slurm has made up its mind about it."""
        return self.state in FINAL_STATES and "COMPLETING" not in self.flags

    @property
    def is_pending(self) -> bool:
        """Whether the job waits for its next run."""
        return self.state in PENDING_STATES

    @property
    def is_running(self) -> bool:
        """Whether the run holds its nodes."""
        return self.state in RUNNING_STATES or (self.state in FINAL_STATES and "COMPLETING" in self.flags)


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node as slurmctld describes it. Absent (None) is what it does not say."""

    name: str
    state: str  # base state in small letters: idle, mixed, allocated, down, unknown, error, future
    flags: tuple[str, ...] = ()  # in small letters: drain, completing, not_responding, reboot_requested, ...
    reason: str | None = None
    cpus: int | None = None
    cpus_allocated: int | None = None
    cpu_load: float | None = None  # runnable processes, one-minute mean
    memory_bytes: int | None = None
    memory_allocated_bytes: int | None = None
    memory_free_bytes: int | None = None
    gpus: int | None = None
    gpus_allocated: int | None = None
    boot_time: int | None = None  # Unix seconds
    slurmd_start_time: int | None = None
    last_busy: int | None = None
    partitions: tuple[str, ...] = ()
    version: str | None = None


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not be understood: where in the answer, and why. The others are not lost with it."""

    path: str  # such as jobs[3].job_state
    reason: str
    job_id: str | None = None


class SlurmAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What Slurm answered to a question about jobs."""

    records: tuple[SlurmRecord, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
