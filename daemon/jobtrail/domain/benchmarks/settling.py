"""What the server works out of a reported run: its links, energy, validity and verdicts."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jobtrail.domain.benchmarks.report import JobClaim, Status


class LinkState(StrEnum):
    """Whether a claim on a job is believed."""

    LINKED = "linked"
    PENDING = "pending"  # the job is not known yet
    CONFLICT = "conflict"  # what is known of the job contradicts it


class CandidateRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the claimed job that the store knows."""

    cluster: str
    job_id: str
    run: int
    start_us: int | None = None
    end_us: int | None = None
    user_name: str | None = None
    is_over: bool = False
    restart_count: int | None = None


class JobLink(msgspec.Struct, frozen=True, kw_only=True):
    """A claim and what became of it; `cluster` and `run` are set when it is linked."""

    claim: JobClaim
    state: LinkState
    cluster: str | None = None
    run: int | None = None
    reason: str | None = None


class EnergySample(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative energy of a run on a node at a moment, in µJ, and for how long of the run it was measured, in µs."""

    node: str
    time_us: int
    gpu_microjoules: int | None = None
    cpu_microjoules: int | None = None
    dram_microjoules: int | None = None
    covered_us: int | None = None
    gpu_method: str | None = None  # counter | integrated | apportioned | mixed


class WindowUse(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a linked run over a window: samples inside it and, of each node, one before and one after.

    `throttled` are reasons for which a GPU's clock was held down in it, `shared` GPUs of it that other jobs held too.
    """

    nodes: tuple[str, ...] = ()  # all that the run has
    samples: tuple[EnergySample, ...] = ()
    throttled: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    has_gpus: bool = False
    pue: float | None = None
    factor_grams_per_kwh: float | None = None
    factor_source: str | None = None
    factor_year: int | None = None
    is_over: bool = False  # no more samples will come
    complete: bool = False  # every node has a sample after the window's end


class WindowEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one component over a window. `coverage` is the part of the window that was measured, 0 to 1."""

    window: str  # bench | job
    domain: str  # gpu | cpu | dram | total
    joules: float
    method: str
    coverage: float
    pue: float | None = None
    factor_grams_per_kwh: float | None = None
    factor_source: str | None = None
    factor_year: int | None = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What is written of a run once its links and energy are known. `open_reason` says what is still awaited."""

    links: tuple[JobLink, ...] = ()
    energies: tuple[WindowEnergy, ...] = ()
    measurements: tuple[tuple[str, str, float], ...] = ()  # (metric, stat, value) that need both sides
    energy_invalid_reason: str | None = None  # why there are no numbers that need both sides, or why not to trust them
    open_reason: str | None = None


class HistoryRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the judge of regressions sees it: gate values by (metric, stat), of each repeat and of the run."""

    run_uid: str
    ended_us: int
    status: Status
    values: dict[tuple[str, str], float]
    repeats: dict[tuple[str, str], tuple[float, ...]] = {}
    verdicts: dict[tuple[str, str], str] = {}  # those held so far
    error_rate: float | None = None
    counts: bool = True  # not while it names jobs and is linked to none
    accepted: bool = False
    pinned: bool = False


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a metric of a run is against its baseline. Ratios are run / baseline; `min_detectable` a relative change."""

    run_uid: str
    metric: str
    stat: str
    verdict: str  # ok | suspect | regression | improvement | suspect_improvement | insufficient
    baseline_n: int
    median: float | None = None
    mad_log: float | None = None
    z: float | None = None
    relative_change: float | None = None
    min_detectable: float | None = None
    confirmed_by: str | None = None  # run_uid, or `repeats`
    reference_uid: str | None = None  # the pinned run it was compared with as well
    reference_change: float | None = None
    advisory: bool = False
    rule_version: int = 1


class UnsettledRun(msgspec.Struct, frozen=True, kw_only=True):
    """A reported run whose links or energy are open, with the runs of the jobs it claims."""

    run_uid: str
    started_us: int
    ended_us: int
    status: Status
    claims: tuple[JobClaim, ...]
    candidates: tuple[CandidateRun, ...]
    windows: tuple[
        tuple[int, int], ...
    ] = ()  # of the repeats that count, sorted and apart; none: all of the run's time
    output_tokens: float | None = None  # of the same repeats together
    user_name: str | None = None
    from_job: bool = False
    by_root: bool = False
    received_us: int = 0


class LastValidRun(msgspec.Struct, frozen=True, kw_only=True):
    """The last valid run of one recipe, model and hardware, for the gauges."""

    cluster: str
    recipe: str
    model: str
    hardware: str  # short fingerprint
    ended_us: int
    values: dict[tuple[str, str], float]  # (metric, stat) of the vocabulary
    energies: dict[tuple[str, str], float] = {}  # (domain, window) -> joules
    regressions: dict[str, bool] = {}  # by metric that was judged
    baseline_ratios: dict[str, float] = {}
    runs_by_status: dict[str, int] = {}
