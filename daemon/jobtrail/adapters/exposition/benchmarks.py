"""Benchmarks on the page: the last valid run of each recipe, model and hardware.

These change when a benchmark has run, not with every scrape: the text is made once of each page of the board.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal

from jobtrail.adapters.exposition.text import Family, Value, encode_values, header, label_set
from jobtrail.core.benchmarks.board import BenchmarkPage
from jobtrail.domain.benchmarks.metrics import PERCENTILES
from jobtrail.domain.benchmarks.settling import LastValidRun

LABELS = ("cluster", "recipe", "model", "hardware")
Point = tuple[tuple[str, ...], Value]  # the labels beyond LABELS, and the value
Read = Callable[[LastValidRun], Iterable[Point]]


def _number(metric: str) -> Read:
    def read(run: LastValidRun) -> Iterator[Point]:
        yield (), run.values.get((metric, "value"))

    return read


def _mean(metric: str) -> Read:
    def read(run: LastValidRun) -> Iterator[Point]:
        yield (), run.values.get((metric, "mean"))

    return read


def _quantiles(metric: str) -> Read:
    def read(run: LastValidRun) -> Iterator[Point]:
        for stat, quantile in _QUANTILES.items():
            yield (quantile,), run.values.get((metric, stat))

    return read


def _by_word(words: Callable[[LastValidRun], Mapping[str, Value]]) -> Read:
    def read(run: LastValidRun) -> Iterator[Point]:
        for word, value in sorted(words(run).items()):
            yield (word,), value

    return read


def _energies(run: LastValidRun) -> Iterator[Point]:
    yield from sorted(run.energies.items())


def _ended(run: LastValidRun) -> Iterator[Point]:
    yield (), run.ended_us / 1e6


# p50 as 0.5; a report may hold any other percentile, and those are in the database alone
_QUANTILES = {stat: format((Decimal(stat[1:]) / 100).normalize(), "f") for stat in PERCENTILES}
_TIMES = {
    "time_to_first_token": "Time from a request until its first token",
    "time_per_output_token": "Of each request, the time after its first token over the tokens after it",
    "inter_token_latency": "Time between two tokens, of all gaps together",
    "request_latency": "Time of a request from its beginning to its end",
    "batch_latency": "Time of one batch, without a server",
}


def _gauge(name: str, help_text: str, read: Read, *more: str) -> tuple[Family, Read]:
    return Family(f"hpc_benchmark_{name}", "gauge", help_text, (*LABELS, *more)), read


def _time_families() -> Iterator[tuple[Family, Read]]:
    for metric, meaning in _TIMES.items():
        name = f"hpc_benchmark_{metric}_seconds"
        # Prometheus keeps the label quantile for summaries; untyped claims nothing, and promtool accepts it.
        yield Family(name, "untyped", f"{meaning}.", (*LABELS, "quantile")), _quantiles(metric)
        yield Family(f"{name}_mean", "gauge", f"{meaning}: the mean.", LABELS), _mean(metric)


_READERS: tuple[tuple[Family, Read], ...] = (
    _gauge("output_tokens_per_second", "Tokens that came out.", _number("output_token_throughput")),
    _gauge("total_tokens_per_second", "Tokens that went in and came out.", _number("total_token_throughput")),
    _gauge("requests_per_second", "Requests that succeeded.", _number("request_throughput")),
    _gauge("goodput_requests_per_second", "Requests within the recipe's bounds.", _number("request_goodput")),
    *_time_families(),
    _gauge("error_ratio", "Failed requests over all requests.", _number("error_rate")),
    _gauge(
        "energy_joules", "Energy of the job that served, over the benchmark or all of the job.", _energies,
        "domain", "window",
    ),
    _gauge("output_tokens_per_joule", "Tokens that came out, by energy.", _number("output_tokens_per_joule")),
    _gauge(
        "emissions_grams_per_million_output_tokens", "CO2 equivalents of the energy of a million tokens.",
        _number("emissions_per_million_output_tokens"),
    ),
    _gauge("last_run_timestamp_seconds", "When the run ended, since 1970.", _ended),
    _gauge("regression", "1 where the run is a confirmed regression, else 0.", _by_word(
        lambda run: {metric: int(is_worse) for metric, is_worse in run.regressions.items()}), "metric"),
    _gauge("baseline_ratio", "The run over the median of those before it.", _by_word(
        lambda run: run.baseline_ratios), "metric"),
    _gauge("runs", "Runs on record.", _by_word(lambda run: run.runs_by_status), "status"),
)  # fmt: skip
BENCHMARK_FAMILIES: tuple[Family, ...] = tuple(family for family, _ in _READERS)


class BenchmarkText:
    """The benchmarks' part of the page, kept while what it shows stays the same."""

    def __init__(self) -> None:
        self._page: BenchmarkPage | None = None
        self._text = b""

    def render(self, page: BenchmarkPage | None) -> bytes:
        """All families that have a series."""
        if page is not self._page:
            self._page, self._text = page, b"" if page is None else _render(page)
        return self._text


def _render(page: BenchmarkPage) -> bytes:
    starts = [
        label_set(zip(LABELS, (run.cluster, run.recipe, run.model, run.hardware), strict=True))[:-1]
        for run in page.runs
    ]
    parts: list[bytes] = []
    for family, read in _READERS:
        more, name = family.labels[len(LABELS) :], b"\n" + family.name.encode()
        lines = [
            b"".join((name, start, _more_labels(more, labels), b" ", encode_values(value)))
            for run, start in zip(page.runs, starts, strict=True)
            for labels, value in read(run)
            if value is not None and math.isfinite(value)
        ]
        if lines:
            parts += [header(family), *lines, b"\n"]
    return b"".join(parts)


def _more_labels(names: tuple[str, ...], values: tuple[str, ...]) -> bytes:
    return b"," + label_set(zip(names, values, strict=True))[1:] if names else b"}"
