"""What nodes and servers say to each other where nodes hold no database login: the words both sides must agree on.

Bodies are MessagePack, which carries hashes and payloads as the bytes they are, compressed with gzip. Answers are JSON.
The type of a body names its version: a server that is asked in one it does not know says so, and the node waits for the
servers to be upgraded. Fields may be added within a version; who does not know one passes over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from jobtrail.core.access.ports import SecurityEvent, SecurityStore
from jobtrail.core.gpu.ports import EnergySampleRow, EnergySampleSink, GpuSampleRow, GpuSampleSink
from jobtrail.core.link.scope import ANYTHING, Allowed
from jobtrail.core.ports import EventSink, SampleRow, SampleSink
from jobtrail.core.runs.over_runs import Over, OverRuns
from jobtrail.domain.audit import ChainedEvent
from jobtrail.domain.samples import Target

NODE_HEADER = "Jobtrail-Node"  # the node's own name, which every request of the link carries
MEDIA_TYPE = "application/vnd.jobtrail.link.v1+msgpack"

MAX_SENT_BYTES = 16 * 1024 * 1024  # of a body as it is sent
MAX_BODY_BYTES = 24 * 1024 * 1024  # of a body once it is unpacked; a batch holds about 4 MiB of payload
# gzip packs zeros 1000 times; batches of events pack about 10 times and batches of samples about 20 (docs/scaling.md).
MAX_RATIO = 100
FREE_BYTES = 65_536  # a body that unpacks to no more may be packed as densely as it likes
MAX_EVENTS = 1_000  # in a batch
MAX_ROWS = 5_000
MAX_TARGETS = 10_000
MAX_SECURITY_EVENTS = 2_048  # a daemon keeps half as many while no server is there

HEAD_PATH = "/v1/chains/{chain_id}/head"
BATCHES_PATH = "/v1/chains/{chain_id}/batches"
JOB_SAMPLES_PATH = "/v1/samples/jobs"
GPU_SAMPLES_PATH = "/v1/samples/gpus"
ENERGY_SAMPLES_PATH = "/v1/samples/energy"
OVER_RUNS_PATH = "/v1/runs/over"
SECURITY_PATH = "/v1/security/forwarded"

JobKey = tuple[str, str]  # cluster name, job id


class EventBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one chain, in order."""

    events: tuple[ChainedEvent, ...]
    trail_only: bool = False


class JobSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Readings of jobs."""

    rows: tuple[SampleRow, ...]


class GpuSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Readings of GPUs."""

    rows: tuple[GpuSampleRow, ...]


class EnergySamples(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of open runs."""

    rows: tuple[EnergySampleRow, ...]


class RunsAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that a node holds open: is any of them over?"""

    targets: tuple[Target, ...]


class SecurityEvents(msgspec.Struct, frozen=True, kw_only=True):
    """Who was turned away on a node."""

    events: tuple[SecurityEvent, ...]


class RunsOver(msgspec.Struct, frozen=True, kw_only=True):
    """Those that are over, by ref."""

    runs: Mapping[str, Over]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a server did not do what it was asked; what more there is in `details` depends on the status."""

    error: str
    message: str = ""
    details: Mapping[str, object] = {}


class ChainOwners(Protocol):
    """Whose chains the store holds."""

    async def owner(self, chain_id: str) -> str | None:
        """The node whose chain it is; None when the store holds nothing of it. Raises StoreUnavailable."""
        ...


class PartOfJob(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a node's part in a job."""

    has_part: bool = False
    refused_until_us: int | None = None  # all of the job's runs are elsewhere until then, as Slurm says


class JobParts(Protocol):
    """Which jobs nodes have a part in."""

    async def parts(self, jobs: Sequence[JobKey], node: str) -> Mapping[JobKey, PartOfJob]:
        """What is known of the part of `node` in those of `jobs` that are held. Raises StoreUnavailable."""
        ...


class ForwardedTo(msgspec.Struct, frozen=True, kw_only=True):
    """What a server hands on to of what nodes forward: the very ports that a node with a database uses."""

    events: EventSink
    owners: ChainOwners
    parts: JobParts
    samples: SampleSink
    gpu_samples: GpuSampleSink
    energy_samples: EnergySampleSink
    over_runs: OverRuns
    security: SecurityStore
    at_a_time: int  # requests that use the database at once; more wait a moment, and are then sent away
    allowed: Allowed = ANYTHING  # what nodes may say
