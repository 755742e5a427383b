"""By what lists of benchmark runs can be sorted: a column of the summary, or a metric with its statistic."""

from __future__ import annotations

import msgspec

from jobtrail.domain.benchmarks.metrics import METRICS, Direction
from jobtrail.domain.errors import InvalidEvent

NEWEST = "-started_at"
# Columns that benchmark_list_by_column.sql has a branch for.
COLUMNS = (
    "started_at", "ended_at", "reported_at", "recipe", "mode", "model", "tool", "tool_version", "status", "verdict",
    "hardware", "gpu_model", "gpu_count", "user_name", "account", "partition", "job_id", "job_state", "link_state",
    "error_ratio", "duration_seconds", "output_tokens", "gpu_joules", "cpu_joules", "dram_joules", "total_joules",
    "energy_coverage_ratio", "job_total_joules",
)  # fmt: skip
# Columns of the summary that are one number of the vocabulary.
NUMBERS = {
    "output_tokens_per_second": ("output_token_throughput", "value"),
    "total_tokens_per_second": ("total_token_throughput", "value"),
    "requests_per_second": ("request_throughput", "value"),
    "goodput_requests_per_second": ("request_goodput", "value"),
    "ttft_p50_seconds": ("time_to_first_token", "p50"),
    "ttft_p99_seconds": ("time_to_first_token", "p99"),
    "tpot_p50_seconds": ("time_per_output_token", "p50"),
    "tpot_p99_seconds": ("time_per_output_token", "p99"),
    "itl_p50_seconds": ("inter_token_latency", "p50"),
    "latency_p50_seconds": ("request_latency", "p50"),
    "latency_p99_seconds": ("request_latency", "p99"),
    "batch_latency_p50_seconds": ("batch_latency", "p50"),
    "output_tokens_per_joule": ("output_tokens_per_joule", "value"),
    "joules_per_output_token": ("energy_per_output_token", "value"),
    "emissions_grams": ("emissions", "value"),
    "emissions_grams_per_million_output_tokens": ("emissions_per_million_output_tokens", "value"),
}


class Sorting(msgspec.Struct, frozen=True):
    """A column, or a metric with its statistic, and whether the largest comes first."""

    descending: bool
    column: str | None = None
    number: tuple[str, str] | None = None


def sorting(text: str) -> Sorting:
    """What `sort` of a list means. Raises InvalidEvent for an unknown key."""
    descending, key = text.startswith("-"), text.removeprefix("-")
    if key in COLUMNS:
        return Sorting(descending, column=key)
    if key in NUMBERS:
        return Sorting(descending, number=NUMBERS[key])
    name, _, stat = key.partition(".")
    if name in METRICS:
        return Sorting(descending, number=(name, stat or usual_stat(name)))
    allowed = ", ".join((*COLUMNS, *NUMBERS))
    raise InvalidEvent("sort", f"{key!r} is unknown; allowed are {allowed}, and a metric such as request_latency.p90")


def usual_stat(metric: str) -> str:
    """The statistic that is meant where none is named: the median of times per request, else the one number."""
    known = METRICS[metric]
    if known.gates:
        return known.gates[0]
    return "p50" if known.unit == "s" and known.direction is Direction.LOWER else "value"
