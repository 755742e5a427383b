"""Events: the only way anything about a job enters Jobtrail.

An event is one fact somebody reports: a hook, the collector itself, a person through the API. Its encoded form is
hashed, stored and never re-encoded, so it holds integers and text only, save what a benchmark measured: times in
microseconds since the Unix epoch (`*_us`), sizes in bytes, CPU time in microseconds. Every integer stays below 2**53,
the largest that JSON readers in all languages agree on.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from jobtrail.domain.benchmarks.report import BaselineDecision, BenchmarkReport
from jobtrail.domain.claims import Claims
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import SlurmRecord

EARLIEST_US = 946_684_800_000_000  # 2000-01-01T00:00:00Z
LATEST_US = 4_102_444_800_000_000  # 2100-01-01T00:00:00Z
MAX_EXACT_INT = 2**53 - 1


class EventKind(StrEnum):
    """What happened."""

    CHAIN_STARTED = "chain_started"  # a new spool began; first row of every chain
    JOB_STARTED = "job_started"  # a node began the job's run
    JOB_FOUND = "job_found"  # a running job no start event had announced
    CHECKPOINT = "checkpoint"  # usage so far of a running job
    JOB_FINISHED = "job_finished"  # a node ended the job's run
    USAGE_RECORDED = "usage_recorded"  # the node's final usage of the run
    JOB_CLOSED = "job_closed"  # the run is over, inferred: nobody had reported its end
    BENCHMARK_RECORDED = "benchmark_recorded"  # a benchmark ran; about no run of a job until it is linked to one
    BASELINE_DECIDED = "baseline_decided"  # a person made a benchmark's run a reference for others, or no longer
    SLURM_REPORTED = "slurm_reported"  # Slurm's own word on a run: its state, its outcome, what the hooks do not know
    JOB_CREATED = "job_created"  # a person began to keep a job by hand
    JOB_AMENDED = "job_amended"  # a person changed what is said of a job
    JOB_WITHDRAWN = "job_withdrawn"  # a person took a job back that is kept by hand
    CHAIN_HEARTBEAT = "chain_heartbeat"  # nothing else came for a while: the chain's end is where it should be
    WITNESS_MISMATCH = "witness_mismatch"  # the store told this writer of a checkpoint that contradicts what it knows
    PAYLOAD_ERASED = "payload_erased"  # in the database's own chain: what was said of somebody is erased by order
    PAYLOAD_PRUNED = "payload_pruned"  # in the database's own chain: old payloads are removed
    TRAIL_PRUNED = "trail_pruned"  # in the database's own chain: old rows are removed
    HOLD_PLACED = "hold_placed"  # in the database's own chain: nothing may be removed
    HOLD_LIFTED = "hold_lifted"  # in the database's own chain: removals are allowed again
    GAP = "gap"  # for want of room a writer gave something up; `gap` says what and how much
    CLOCK_STEPPED = "clock_stepped"  # the writer's wall clock was set; `clock_step_us` says how far
    COMMENT_WRITTEN = "comment_written"  # `note` was written to the AdminComment of the run's job in Slurm's accounting


BENCHMARK_KINDS = (EventKind.BENCHMARK_RECORDED, EventKind.BASELINE_DECIDED)  # about no run of a job
PERSONS_KINDS = (EventKind.JOB_CREATED, EventKind.JOB_AMENDED, EventKind.JOB_WITHDRAWN)


class Actor(StrEnum):
    """Who made the change (`changed_by` in the audit trail)."""

    SLURM_PROLOG = "slurm-prolog"
    SLURM_EPILOG = "slurm-epilog"
    SLURM_CONTROLLER = "slurm-controller"
    COLLECTOR = "collector"
    RECONCILER = "reconciler"
    API = "api"
    CLI = "cli"


class Whereabouts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the job's resource counters are on this node, when the sender knows better than the layout of Slurm."""

    cgroup_path: str | None = None
    root_pid: int | None = None  # observe this process and its descendants through /proc
    root_pid_start_ticks: int | None = None  # field 22 of /proc/PID/stat; a reused pid has another


class GpuUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run had of one GPU of a node, or of an instance of one. Numbers only grow, as those of NodeUsage.

    `gpu_id` is the driver's. One that was allocated and is not found among the node's has `unresolved:<position>`, so
    that it is shown all the same.
    """

    gpu_id: str
    vendor: str | None = None
    minor: int | None = None
    name: str | None = None
    memory_total_bytes: int | None = None
    resolved_by: str | None = None  # how Slurm's position became this GPU
    observed_us: int | None = None  # time for which it was looked at while the run held it
    busy_us: int | None = None  # of that, utilisation times time
    unused_us: int | None = None  # of that, time in which no process of the run used it
    memory_peak_bytes: int | None = None
    energy_microjoules: int | None = None
    energy_covered_us: int | None = None
    energy_method: str | None = None  # counter | integrated | apportioned | mixed
    errors: dict[str, int] = {}  # the driver's error code, for NVIDIA an XID -> how often
    mismatch: str | None = None  # evidence that another job used it, or this job another GPU


class EmissionBasis(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What grams of CO2 equivalents were worked out with: factor and PUE in millionths, so that they are exact."""

    micrograms_per_kwh: int
    pue_millionths: int
    source: str
    year: int | None = None  # the one the factor is of; None where the operator did not say


class NodeUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node's cumulative usage of a run. Every value only grows, so two reports merge by taking the larger."""

    cpu_usage_us: int | None = None
    cpu_user_us: int | None = None
    cpu_system_us: int | None = None
    cpu_throttled_us: int | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None  # the largest that the kernel held the run to
    oom_kills: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    processes_peak: int | None = None
    gpu_observed_us: int | None = None  # summed over the run's GPUs on this node, as are the next two
    gpu_busy_us: int | None = None
    gpu_unused_us: int | None = None
    gpu_memory_peak_bytes: int | None = None  # the largest of one GPU
    energy_gpu_microjoules: int | None = None
    energy_cpu_microjoules: int | None = None
    energy_dram_microjoules: int | None = None
    energy_covered_us: int | None = None  # wall time over which every component that has a value was measured
    emissions_micrograms: int | None = None  # of CO2 equivalents
    emissions_energy_microjoules: int | None = None  # the energy they are of; less than all where a factor was missing
    emission_bases: tuple[EmissionBasis, ...] = ()  # all that were in force
    gpus: tuple[GpuUsage, ...] = ()  # by gpu_id; of one node, not in a run's total
    sample_count: int = 0
    first_sample_us: int | None = None
    last_sample_us: int | None = None
    last_alive_us: int | None = None  # the last sample that showed processes, or could not tell their number
    covered_us: int | None = None  # wall time from the run's start on this node to its last sample
    sources: dict[str, str] = {}  # value name -> where it came from, e.g. {"cpu": "cgroup_v1+parent"}
    absent: dict[str, str] = {}  # value name -> why there is none


class Closing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That a run is over although nobody reported its end. The end lies between `not_before_us` and the event's time.

    `reason` is one of: node_rebooted, cgroup_gone, process_gone, later_run_began, ended_in_slurm (a node speaks, of its
    part), unknown_to_slurm (the whole run; a node's part of such a run).
    """

    reason: str
    not_before_us: int
    detail: str = ""
    whole_run: bool = False


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a writer gave up for want of room between `since_us` and the event's time, by what it was.

    samples_thinned, samples_dropped: rows of samples; retained_events: events that the store has and the node kept for
    the case that it forgets them; events_refused: answers 503, each of an event that its hook then kept as a file.
    """

    since_us: int
    shed: dict[str, int]
    goes_on: bool = False  # it was not over: another record follows, from this writer or from the one after it
    uncounted_since_us: int | None = None  # the writer ended while it gave things up; from then on it counted no more


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reported fact. `encode` gives the bytes that are hashed, stored and forwarded."""

    kind: EventKind
    event_id: str
    time_us: int
    cluster: str
    job_id: str | None  # public id: slurm-<n>, local-<n> or manual-<name>; None for events about the chain itself
    node: str
    changed_by: Actor
    source: str
    slurm_start_time: int | None = None  # SLURM_JOB_START_TIME, Unix seconds: the same in one run's prolog and epilog
    sluid: str | None = None  # Slurm 25.11+: unique per job record
    opened_by: str | None = None  # event id that opened this node's run, added by the node's spool
    facts: JobFacts | None = None
    whereabouts: Whereabouts | None = None
    outcome: Outcome | None = None
    usage: NodeUsage | None = None
    environment: dict[str, str] = {}  # the hook's environment as evidence
    environment_escaped: tuple[str, ...] = ()  # names whose value is escaped: \\ for a backslash, \xNN for a byte
    note: str | None = None
    run: int | None = None  # number of the run, where the sender read it from the store
    slurm: SlurmRecord | None = None
    closing: Closing | None = None
    benchmark: BenchmarkReport | None = None
    baseline: BaselineDecision | None = None
    gap: Gap | None = None
    clock_step_us: int | None = None  # how far the wall clock was set; `time_us` is after that, by the new time
    claims: Claims | None = None  # what a person says of the job
    person: str | None = None  # who says so, in their own word; nobody checked it
    sent_by: str | None = None  # who sent it, as this daemon knows: a user by the kernel, or who showed a token
    request_id: str | None = None  # UUID by which the sender finds again what belongs to one request


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """The canonical bytes of an event: JSON, keys sorted, absent fields left out."""
    return _encoder.encode(event)


def decode(payload: bytes) -> Event:
    """The event in stored bytes. Raises InvalidEvent when they are not one."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent("payload", str(error)) from error


def request_digest(hook: str, time_text: str, body: bytes) -> bytes:
    """SHA-256 of what a hook sent: its name, its time exactly as it wrote it, and its body, each after a NUL.

    The same event digests alike whether it came by POST or from a file, so a retry is told from a conflict.
    """
    return hashlib.sha256(b"\x00".join((hook.encode(), time_text.encode(), body))).digest()


def check_time_us(field: str, time_us: int) -> int:
    """`time_us` if it lies between the years 2000 and 2100, else InvalidEvent naming `field`."""
    if not EARLIEST_US <= time_us < LATEST_US:
        raise InvalidEvent(field, "must be a time between the years 2000 and 2100")
    return time_us
