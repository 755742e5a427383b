"""guidellm, `benchmarks.json` with metadata.version 2 (guidellm 0.8.1 was at hand). One file holds several benchmarks.

By name, `inter_token_latency_ms` is of each request what came after the first token over the tokens after it (weighted
by them), here time_per_output_token; `time_per_output_token_ms` is all of a request's time over all of its tokens, here
normalized_time_per_output_token; pooled gaps are not in the file. Only requests that succeeded are counted. The
percentiles of the rates are of instantaneous rates, so of a rate only the mean is taken, which is over the duration.

Requests still under way when the time was up are `incomplete`, not failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from jobtrail.adapters.benchmark_files.documents import shown
from jobtrail.adapters.benchmark_files.keeping import claims_of, kept, text_or_none
from jobtrail.adapters.benchmark_files.quantities import (
    Measured,
    counts,
    percentile,
    utc_microseconds,
    whole,
    why_nothing,
)
from jobtrail.domain.benchmarks.report import Mode, ToolResult
from jobtrail.domain.errors import UnknownResult

SHAPE = ("metadata", "benchmarks")
MAX_BENCHMARKS = 1_000
_VERSION = 2
_TIMES = {
    "time_to_first_token_ms": ("time_to_first_token", 1000.0),
    "inter_token_latency_ms": ("time_per_output_token", 1000.0),
    "time_per_output_token_ms": ("normalized_time_per_output_token", 1000.0),
    "request_latency": ("request_latency", 1.0),
}
_RATES = {
    "requests_per_second": "request_throughput",
    "prompt_tokens_per_second": "input_token_throughput",
    "output_tokens_per_second": "output_token_throughput",
    "tokens_per_second": "total_token_throughput",
}
_TOKENS = {"prompt_token_count": "input_tokens", "output_token_count": "output_tokens"}
_SCALARS = {"mean": "mean", "median": "p50", "std_dev": "std"}
_CLIENT = "client"
_SINGLE_REQUESTS = frozenset({"requests"})


def read(document: Mapping[str, Any], sha256: str) -> tuple[ToolResult, ...]:
    """The results in a file of guidellm. With several each has a digest of its own, of the file's and its number.
    Raises UnknownResult, naming the field."""
    about = _object("metadata", document["metadata"])
    if about.get("version") != _VERSION or "guidellm_version" not in about:
        raise UnknownResult("metadata.version", f"must be {_VERSION}, with guidellm_version beside it")
    benchmarks = document["benchmarks"]
    if not isinstance(benchmarks, list) or not 0 < len(benchmarks) <= MAX_BENCHMARKS:
        raise UnknownResult("benchmarks", f"must be a list of 1 to {MAX_BENCHMARKS} benchmarks")
    version = text_or_none(about["guidellm_version"])
    labels = _inside(document, "config", "metadata", "labels")
    results = []
    for index, benchmark in enumerate(benchmarks):
        where = f"benchmarks[{index}]"
        digest = sha256 if len(benchmarks) == 1 else hashlib.sha256(f"{sha256}#{index}".encode()).hexdigest()
        results.append(_result(where, _object(where, benchmark), document, digest, version, labels))
    return tuple(results)


def _result(
    where: str,
    benchmark: Mapping[str, Any],
    document: Mapping[str, Any],
    digest: str,
    version: str | None,
    labels: Mapping[str, Any],
) -> ToolResult:
    metrics = _object(f"{where}.metrics", benchmark.get("metrics"))
    totals = _object(f"{where}.metrics.request_totals", metrics.get("request_totals"))
    completed = whole(f"{where}.metrics.request_totals.successful", totals.get("successful"))
    failed = whole(f"{where}.metrics.request_totals.errored", totals.get("errored"))
    measured = counts(completed, failed)
    duration = (measured if completed else Measured()).add("duration", f"{where}.duration", benchmark.get("duration"))
    if completed:
        _measure(measured, metrics, f"{where}.metrics")
    started, ended = _window(benchmark, where)
    config = _inside(benchmark, "config")
    return ToolResult(
        tool="guidellm",
        mode=Mode.SERVE,
        sha256=digest,
        measurements=measured.found(),
        tool_version=version,
        model=_model(benchmark, document),
        requests_completed=completed,
        requests_failed=failed,
        started_us=started,
        ended_us=ended,
        duration_seconds=duration,
        # By default the server's usage is preferred and, where a response has none, the text is split anew; the file
        # does not say which it was.
        token_count_source=_CLIENT if config.get("prefer_response_metrics") is False else None,
        invalid_reason=None if completed else why_nothing(failed),
        claims=claims_of({**labels, **{key: config[key] for key in ("run_id", "id_") if key in config}}),
        raw=kept(benchmark, without=_SINGLE_REQUESTS),
    )


def _measure(measured: Measured, metrics: Mapping[str, Any], where: str) -> None:
    for key, (metric, per) in _TIMES.items():
        block, place = _successful(metrics, key, where)
        for word, stat in _SCALARS.items():
            measured.add(metric, f"{place}.{word}", block.get(word), stat=stat, per=per)
        percentiles = block.get("percentiles")
        for name, value in (_object(f"{place}.percentiles", percentiles) if percentiles is not None else {}).items():
            stat_name = _percentile(name)
            if stat_name is not None:
                measured.add(metric, f"{place}.percentiles.{name}", value, stat=stat_name, per=per)
    for key, metric in _RATES.items():
        block, place = _successful(metrics, key, where)
        measured.add(metric, f"{place}.mean", block.get("mean"))
    for key, metric in _TOKENS.items():
        block, place = _successful(metrics, key, where)
        measured.add(metric, f"{place}.total_sum", block.get("total_sum"))


def _percentile(name: str) -> str | None:
    """p50 is the 50th percentile, p001 the 0.1th and p999 the 99.9th: the digits after the second are a fraction."""
    digits = name[1:6]
    if name[:1] != "p" or not digits.isascii() or not digits.isdigit() or not 2 <= len(name) - 1 <= 5:
        return None
    return percentile(f"{digits[:2]}.{digits[2:] or '0'}")


def _successful(metrics: Mapping[str, Any], key: str, where: str) -> tuple[Mapping[str, Any], str]:
    """What is said of the requests that succeeded; empty where the metric is absent."""
    place = f"{where}.{key}"
    by_outcome = metrics.get(key)
    if by_outcome is None:
        return {}, place
    place, block = f"{place}.successful", _object(place, by_outcome).get("successful")
    return (_object(place, block) if block is not None else {}), place


def _window(benchmark: Mapping[str, Any], where: str) -> tuple[int | None, int | None]:
    started = utc_microseconds(f"{where}.start_time", benchmark.get("start_time"))
    ended = utc_microseconds(f"{where}.end_time", benchmark.get("end_time"))
    if started is not None and ended is not None and ended < started:
        raise UnknownResult(f"{where}.end_time", "must not be before start_time")
    return started, ended


def _model(benchmark: Mapping[str, Any], document: Mapping[str, Any]) -> str | None:
    return text_or_none(_inside(benchmark, "config", "backend").get("model")) or text_or_none(
        _inside(document, "config", "spec", "backend").get("model")
    )


def _inside(value: Any, *keys: str) -> Mapping[str, Any]:
    """The object under the keys; empty where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnknownResult(where, "must be an object" if value is not None else "is missing")
    if len(value) > MAX_BENCHMARKS:
        raise UnknownResult(where, f"has {len(value)} keys, the first of them {shown(next(iter(value)))}")
    return value
