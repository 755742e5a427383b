"""Ports of benchmarks: what settles reported runs, and what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from jobtrail.core.ports import Receipt
from jobtrail.domain.benchmarks.report import BaselineDecision
from jobtrail.domain.benchmarks.settling import (
    CandidateRun,
    HistoryRun,
    LastValidRun,
    Settlement,
    UnsettledRun,
    Verdict,
    WindowUse,
)
from jobtrail.domain.events import Actor


class BenchmarkStore(Protocol):
    """Where reported runs are settled. Every method raises StoreUnavailable."""

    async def unsettled(self, *, limit: int) -> Sequence[UnsettledRun]:
        """Runs whose links or energy are still open, oldest first; none that was received more than a week ago."""
        ...

    async def window_use(self, run: CandidateRun, *, started_us: int, ended_us: int) -> WindowUse:
        """What is known of a job's run over a window."""
        ...

    async def settle(self, run_uid: str, settlement: Settlement) -> None:
        """Replace links, energies and what follows from them."""
        ...

    async def unjudged(self, *, limit: int) -> Sequence[str]:
        """Uids of ok runs without verdicts, and of those whose history has changed; oldest first. None whose job is
        still awaited."""
        ...

    async def history(self, run_uid: str, *, limit: int) -> Sequence[HistoryRun]:
        """The run last, before it the latest `limit` runs of the same recipe, model and fingerprint, oldest first; the
        pinned one among them however old it is."""
        ...

    async def gates(self, run_uid: str) -> dict[tuple[str, str], float]:
        """The least relative change that counts, by the (metric, stat) its recipe gates on; empty for the defaults."""
        ...

    async def write_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Replace the verdicts of these runs' metrics."""
        ...

    async def last_valid_runs(self, *, ended_after_us: int, limit: int) -> Sequence[LastValidRun]:
        """The last valid run of each recipe, model and hardware: those of a job first, which not everybody can make up
        as many of as they like, each newest first."""
        ...


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which benchmark runs to list; None is any. `sort` is a column of the summary or a metric, with `-` descending."""

    recipe: str | None = None
    model: str | None = None
    status: str | None = None
    tool: str | None = None
    job_id: str | None = None
    user_name: str | None = None
    hardware: str | None = None
    verdict: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    sort: str = "-started_at"


# The columns of a run in a list, in their order; on a leaderboard others stand before them.
RUN_COLUMNS = (
    "run_uid", "recipe", "recipe_version", "recipe_sha256", "mode", "tool", "tool_version", "model", "model_revision",
    "status", "invalid_reason", "verdict", "started_at", "ended_at", "repeats", "cluster_name", "job_id", "run",
    "job_role", "link_state", "link_source", "link_reason", "user_name", "account", "partition", "job_state",
    "job_verdict", "correlation_id", "output_tokens_per_second", "total_tokens_per_second", "requests_per_second",
    "goodput_requests_per_second", "ttft_p50_seconds", "ttft_p99_seconds", "tpot_p50_seconds", "tpot_p99_seconds",
    "itl_p50_seconds", "latency_p50_seconds", "latency_p99_seconds", "batch_latency_p50_seconds", "error_ratio",
    "duration_seconds", "output_tokens", "token_count_source", "gpu_joules", "cpu_joules", "dram_joules",
    "total_joules", "energy_coverage_ratio", "energy_method", "job_gpu_joules", "job_cpu_joules", "job_dram_joules",
    "job_total_joules", "job_energy_coverage_ratio", "job_energy_method", "output_tokens_per_joule",
    "joules_per_output_token", "emissions_grams", "emissions_grams_per_million_output_tokens",
    "energy_invalid_reason", "hardware", "fingerprint", "gpu_model", "gpu_count", "mig_profile", "driver_version",
    "cpu_model", "cpu_count", "accepted", "pinned", "reported_by", "reported_at", "stored_at", "settled_at",
    "open_reason", "notes",
)  # fmt: skip
RANK_COLUMNS = ("rank", "value", "metric", "stat", "unit", "direction", *RUN_COLUMNS)


class BenchmarkReader(Protocol):
    """What is held of benchmarks, for people. Every method raises StoreUnavailable.

    A row is one of view `benchmark_run_summary`, by column name.
    """

    async def list_runs(self, wanted: RunFilter, *, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Runs that match and how many there are in all. Raises InvalidEvent for an unknown sort."""
        ...

    async def show_run(self, run_uid: str) -> dict[str, Any]:
        """The summary with `metrics`, `repeats`, `links`, `energies`, `verdicts`. A beginning of a uid, of eight
        characters or more, will do where it is the only one. Raises NotFound."""
        ...

    async def leaderboard(self, metric: str, stat: str, wanted: RunFilter, *, limit: int) -> list[dict[str, Any]]:
        """The best valid run of each recipe, model and hardware, best first by the metric's direction, with `rank`.

        Raises NotFound for a metric that has no direction or is unknown.
        """
        ...

    async def compare(self, one: str, other: str) -> dict[str, Any]:
        """Both summaries, and each metric both have with change, whether that is better, and whether it is more than
        noise. Raises NotFound."""
        ...


class Reporter(msgspec.Struct, frozen=True, kw_only=True):
    """Who reports a benchmark's run, as the kernel says. Who is `trusted` has no share to keep to."""

    uid: int
    trusted: bool = False


class BenchmarkIntake(Protocol):
    """The way in for what people report of benchmarks."""

    def admit(self, reporter: Reporter) -> None:
        """Take one report off a user's share, before it is read. Raises TooManyReports, and SpoolFull where what room
        is left is kept for the hooks."""
        ...

    async def take(self, body: bytes, reporter: Reporter, *, by: Actor, event_id: str | None = None) -> Receipt:
        """Record the report in `body`; `event_id` is what the sender takes it to be. Raises InvalidEvent,
        EventConflict, SpoolFull, SpoolBroken."""
        ...

    async def decide(
        self, decision: BaselineDecision, *, event_id: str, by: Actor, source: str, note: str | None
    ) -> Receipt:
        """Record a person's decision about a run. Raises EventConflict, SpoolFull, SpoolBroken."""
        ...
