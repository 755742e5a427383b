"""The board: what /metrics shows, held in memory. The sampler writes it, the exposition only reads it."""

from __future__ import annotations

import msgspec

from jobtrail.core.benchmarks.board import BenchmarkBoard
from jobtrail.core.ports import OpenRun
from jobtrail.domain.events import GpuUsage, NodeUsage
from jobtrail.domain.gpus import GpuReading
from jobtrail.domain.samples import NodeReading, Reading
from jobtrail.domain.slurm import NodeRecord

GRACE_SCRAPES = 2
GRACE_SECONDS = 120.0


class GpuDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU of a job, as of the last look, with what the job had of it so far."""

    reading: GpuReading
    usage: GpuUsage
    idle_seconds: float | None = None  # within the sliding window


class JobGpus(msgspec.Struct, frozen=True, kw_only=True):
    """A job's GPUs and energy as of the last look. `devices` are those that could be read."""

    usage: NodeUsage
    devices: tuple[GpuDevice, ...] = ()
    active: int | None = None
    unresolved: int | None = None
    mismatches: int | None = None
    usage_percent: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is anything to show: the job holds a GPU, or some energy of it is known."""
        usage = self.usage
        return not (
            self.unresolved is None
            and usage.energy_cpu_microjoules is None
            and usage.energy_gpu_microjoules is None
            and usage.energy_dram_microjoules is None
        )


class NodeGpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU of this node, as of the last look, and how many jobs hold it."""

    reading: GpuReading
    jobs: int


class JobEntry(msgspec.Struct, kw_only=True):
    """A live job, or one that ended less than two scrapes ago."""

    run: OpenRun
    reading: Reading | None = None
    cpu_percent: float | None = None
    usage: NodeUsage | None = None
    gpus: JobGpus | None = None
    ended_us: int | None = None
    scrapes_left: int = GRACE_SCRAPES
    remove_at: float | None = None  # monotonic seconds


class Board:
    """Live jobs and the node's state. All calls come from the event loop's thread."""

    def __init__(self, *, max_jobs: int, max_benchmarks: int = 1000) -> None:
        self.max_jobs = max_jobs
        self.benchmarks = BenchmarkBoard(max_series=max_benchmarks)
        self.jobs: dict[str, JobEntry] = {}
        self.node: NodeReading | None = None
        self.node_cpu_percent: float | None = None
        self.gpus: tuple[NodeGpu, ...] = ()
        self.job_states: dict[str, int] | None = None  # cluster-wide counts, None while the store has not said
        self.suspended_jobs: tuple[tuple[str, str], ...] = ()  # (cluster, job id), as the store last told Slurm's word
        self.cluster_nodes: tuple[NodeRecord, ...] | None = None  # as Slurm says; None while it has not, or not of late
        self.shed_jobs_total = 0  # jobs that never got series because of the cap
        self._running: set[str] = set()

    def open(self, run: OpenRun) -> bool:
        """Show a job; False when the cap is reached and it is only counted."""
        ref = run.target.ref
        self._running.add(ref)
        if ref in self.jobs:
            return True
        if len(self.jobs) >= self.max_jobs:
            self.shed_jobs_total += 1
            return False
        self.jobs[ref] = JobEntry(run=run)
        return True

    def update(self, ref: str, reading: Reading, cpu_percent: float | None, usage: NodeUsage) -> None:
        """Put a new reading on show."""
        entry = self.jobs.get(ref)
        if entry is not None and entry.ended_us is None:
            entry.reading, entry.cpu_percent, entry.usage = reading, cpu_percent, usage

    def miss(self, ref: str) -> None:
        """The job could not be read: show no levels rather than old ones. Its totals so far stay true."""
        entry = self.jobs.get(ref)
        if entry is not None and entry.ended_us is None:
            entry.reading = entry.cpu_percent = None

    def update_gpus(self, ref: str, gpus: JobGpus) -> None:
        """Put what is known of a job's GPUs and energy on show; the last of a job that has ended, too."""
        entry = self.jobs.get(ref)
        if entry is not None:
            entry.gpus = gpus

    def end(self, ref: str, ended_us: int, now: float) -> None:
        """The job is over: its last values stay for two scrapes, or for two minutes if nobody scrapes."""
        self._running.discard(ref)
        entry = self.jobs.get(ref)
        if entry is not None and entry.ended_us is None:
            entry.ended_us, entry.remove_at = ended_us, now + GRACE_SECONDS

    def scraped(self, now: float) -> None:
        """A scrape was answered: count down the grace of ended jobs."""
        for ref, entry in list(self.jobs.items()):
            if entry.ended_us is None:
                continue
            entry.scrapes_left -= 1
            if entry.scrapes_left <= 0 or (entry.remove_at is not None and now >= entry.remove_at):
                del self.jobs[ref]

    def expire(self, now: float) -> None:
        """Drop ended jobs whose grace ran out without a scrape."""
        for ref, entry in list(self.jobs.items()):
            if entry.remove_at is not None and now >= entry.remove_at:
                del self.jobs[ref]

    def live_jobs(self) -> int:
        """Jobs running on this node, on show or not."""
        return len(self._running)
