"""What is reported of a benchmark's run: the payload of its event, and the manifest beside its result files.

Nothing here is checked against the job: the report is a claim, and its links to jobs are judged by the server.
"""

from __future__ import annotations

import hashlib
import uuid
from enum import StrEnum
from typing import Any

import msgspec

from jobtrail.domain.benchmarks.metrics import Measurement

MAX_RAW_BYTES = 65_536  # of a result's own JSON that is kept, arrays of single requests cut away
_EVENTS = uuid.UUID("7b0c5a52-6a0e-5d0c-9a53-3d0f6a1f2f10")  # name space of the event ids of reports


class Mode(StrEnum):
    """What kind of benchmark it was."""

    SERVE = "serve"  # load on a server over HTTP
    LATENCY = "latency"  # one batch at a time, without a server
    THROUGHPUT = "throughput"  # all requests at once, without a server
    EXTERNAL = "external"  # anything else whose results were brought in


class Status(StrEnum):
    """How the run went. Of a run that is not `ok` no number is compared."""

    OK = "ok"
    FAILED = "failed"  # it did not come to its end
    INVALID = "invalid"  # it came to its end and says nothing, as when all requests failed


class Role(StrEnum):
    """What a job did in the benchmark. Energy is of the job that served."""

    SERVER = "server"
    CLIENT = "client"
    BOTH = "both"


class LinkSource(StrEnum):
    """Where the claim that a job ran the benchmark comes from, the most trusted first."""

    MANIFEST = "manifest"  # pushed from inside the job, the user checked against the job's
    METADATA = "metadata"  # the result file says so itself
    PATH = "path"  # a directory of the file's path is named like the job
    PERSON = "person"  # somebody who may said so


class ToolResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One result that a benchmark's tool wrote.

    A latency of zero, a number that is not finite and one that the tool did not measure are absent. `claims` is what
    the file says of itself and nobody checked. `raw` is the file's own JSON without arrays of single requests.
    """

    tool: str  # vllm | aiperf | guidellm | mlperf-loadgen
    mode: Mode
    sha256: str  # of the bytes the result was read from
    measurements: tuple[Measurement, ...] = ()
    tool_version: str | None = None
    model: str | None = None
    requests_completed: int | None = None
    requests_failed: int | None = None
    started_us: int | None = None  # µs since the Unix epoch, where the tool says it with a zone
    ended_us: int | None = None
    duration_seconds: float | None = None
    token_count_source: str | None = None  # server: as its usage says; client: counted by splitting the text anew
    invalid_reason: str | None = None
    claims: dict[str, str] = {}
    raw: dict[str, Any] = {}


class ResultFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of the run's directory."""

    name: str
    sha256: str
    size_bytes: int


class RecipeIdentity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which recipe ran. `body` is the recipe with all parameters resolved; `sha256` is over the parts of it that decide
    results, as canonical JSON (`recipe_identity`)."""

    name: str
    sha256: str
    version: str | None = None
    body: dict[str, Any] = {}


class Hardware(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the benchmark ran on; None where it could not be told. `gpus` are UUIDs; they, clocks and power limits are
    facts of the run and no part of its fingerprint."""

    gpu_model: str | None = None
    gpu_count: int = 0
    mig_profile: str | None = None
    driver_version: str | None = None
    cpu_model: str | None = None
    cpu_count: int | None = None  # those the run may use
    gpus: tuple[str, ...] = ()
    power_limit_watts: float | None = None
    max_clock_mhz: int | None = None


class JobClaim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that is said to have run the benchmark, or a part of it."""

    job_id: str  # public id
    role: Role
    source: LinkSource
    cluster: str | None = None
    restart_count: int | None = None  # a hint: Slurm's hooks and jobs are told it wrongly at times
    step_id: str | None = None
    array_job_id: str | None = None
    array_task_id: str | None = None
    node_list: str | None = None


class Repeat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One load on the server, or one run of the tool: when, how it ended, and what came out."""

    started_us: int
    ended_us: int
    exit_code: int | None = None
    exit_signal: int | None = None
    result: ToolResult | None = None


class BenchmarkReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of a benchmark, all its repeats. `run_uid` is a UUID made once, whatever becomes of the run.

    `started_us` to `ended_us` is from the beginning of the first repeat to the end of the last, without the server's
    start and the warm-up; of a run that failed before, the wrapper's own start and end. No repeat lies outside.
    """

    run_uid: str
    mode: Mode
    status: Status
    started_us: int
    ended_us: int
    schema: int = 1
    reason: str | None = None  # why it is not ok
    recipe: RecipeIdentity | None = None
    tool: str | None = None
    tool_version: str | None = None
    model: str | None = None
    model_revision: str | None = None
    parameters: dict[
        str, str
    ] = {}  # what decides the speed beside recipe and hardware: dtype, quantisation, parallelism
    hardware: Hardware = Hardware()
    jobs: tuple[JobClaim, ...] = ()
    repeats: tuple[Repeat, ...] = ()
    argv: tuple[str, ...] = ()  # of the load
    files: tuple[ResultFile, ...] = ()
    server_output_tokens: int | None = None  # by the server's own counter over the window: checks the client's
    uid: int | None = None  # the user who reported it, as the kernel says; the daemon writes it
    user_name: str | None = None  # of `uid`
    from_job: bool = False  # whether the kernel's word was that of an open job's user on its node; the daemon writes it


def report_event_id(run_uid: str, body: bytes) -> str:
    """The id of the event that reports these bytes of a run: the same bytes sent again are the same event."""
    return str(uuid.uuid5(_EVENTS, f"{run_uid}:{hashlib.sha256(body).hexdigest()}"))


class Decision(StrEnum):
    """What a person may decide about a run as a reference for others."""

    ACCEPT = "accept"  # a confirmed regression is the new normal: the run counts in baselines
    PIN = "pin"  # runs are compared with this one as well, until another is pinned
    UNPIN = "unpin"


class BaselineDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person's decision about a run; the event's `changed_by` and `note` say whose and why."""

    run_uid: str
    decision: Decision
    by: str
