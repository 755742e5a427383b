"""The vocabulary of benchmark results: each metric's name, SI unit and direction.

Tools use one name for different things: the time per output token of one is the inter-token latency of another. The
names here have one meaning each; the readers of tools' files map to them by meaning.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Direction(StrEnum):
    """Which way is better."""

    HIGHER = "higher"
    LOWER = "lower"
    NONE = "none"  # a fact about the run, neither good nor bad


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of the vocabulary. `gates` are the statistics by which a run is judged unless its recipe says else."""

    name: str
    unit: str
    direction: Direction
    gates: tuple[str, ...] = ()


def _metrics(unit: str, direction: Direction, *names: str, gates: tuple[str, ...] = ()) -> list[Metric]:
    return [Metric(name=name, unit=unit, direction=direction, gates=gates) for name in names]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_metrics("token/s", Direction.HIGHER, "output_token_throughput", gates=("value",)),
        *_metrics("token/s", Direction.HIGHER, "input_token_throughput", "total_token_throughput"),
        *_metrics("req/s", Direction.HIGHER, "request_throughput", "request_goodput"),
        # From the request until its first token.
        *_metrics("s", Direction.LOWER, "time_to_first_token", gates=("p50",)),
        # Of each request: the time after its first token, over the tokens after the first.
        *_metrics("s", Direction.LOWER, "time_per_output_token", gates=("p50",)),
        # Of all gaps between two tokens, or chunks, of all requests together.
        *_metrics("s", Direction.LOWER, "inter_token_latency"),
        # Of each request: all of its time over all of its output tokens.
        *_metrics("s", Direction.LOWER, "normalized_time_per_output_token"),
        *_metrics("s", Direction.LOWER, "request_latency"),
        *_metrics("s", Direction.LOWER, "batch_latency", gates=("p50",)),
        *_metrics("s", Direction.NONE, "duration"),
        *_metrics("count", Direction.NONE, "requests_completed", "requests_failed", "input_tokens", "output_tokens"),
        *_metrics("ratio", Direction.LOWER, "error_rate"),
        *_metrics("ratio", Direction.HIGHER, "spec_decode_acceptance_rate"),
        *_metrics("J", Direction.LOWER, "energy_gpu", "energy_cpu", "energy_dram", "energy_total"),
        *_metrics("token/J", Direction.HIGHER, "output_tokens_per_joule"),
        *_metrics("J/token", Direction.LOWER, "energy_per_output_token"),
        *_metrics("g", Direction.LOWER, "emissions", "emissions_per_million_output_tokens"),
    )
}
PERCENTILES = ("p50", "p90", "p95", "p99")
STATS = ("value", "mean", *PERCENTILES, "std")
PERCENTILE = r"^p[0-9]{1,2}(\.[0-9]{1,3})?$"  # other percentiles than those of STATS may be recorded too


def default_stat(metric: str) -> str:
    """The statistic that a metric is ranked by unless somebody says else: its gate's, the median of a latency, or the
    one number that there is. Unknown metrics have `value`."""
    known = METRICS.get(metric)
    if known is None:
        return "value"
    is_latency = known.unit == "s" and known.direction is Direction.LOWER
    return known.gates[0] if known.gates else "p50" if is_latency else "value"


class Measurement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One number of a result, in the unit of its metric. `stat` is `value` where the metric is one number."""

    metric: str
    value: float
    stat: str = "value"
