"""aiperf, `profile_export_aiperf.json` with schema_version 1.x (1.4 of aiperf 0.13.0 was at hand).

Each metric is a block with its unit. By name, `inter_token_latency` is of each request what came after the first token
over the tokens after it, here time_per_output_token; `inter_chunk_latency` pools the gaps, here inter_token_latency.

aiperf counts output tokens by splitting the text anew, which need not give the tokens that the server made: 1495 for
1280 in one run. Where the server's usage is in the file the tokens are the server's, and the throughputs are worked out
from them over the tool's own window (requests over requests per second). The time per output token divides by the
client's count, request by request, and cannot be worked out anew; it is as the tool says.

Times are written without a zone and are UTC.
"""

from __future__ import annotations

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

SHAPE = ("schema_version", "aiperf_version")
_TIMES = {
    "time_to_first_token": "time_to_first_token",
    "inter_token_latency": "time_per_output_token",
    "inter_chunk_latency": "inter_token_latency",
    "request_latency": "request_latency",
}
_RATES = {"request_throughput": "request_throughput", "goodput": "request_goodput"}
_PER = {"ns": 1e9, "us": 1e6, "ms": 1e3, "sec": 1.0, "s": 1.0}  # of a second
_REQUESTS = {"requests": 1.0}
_TOKENS = {"tokens": 1.0}
_SERVER, _CLIENT = "server", "client"


def read(document: Mapping[str, Any], sha256: str) -> ToolResult:
    """The result in an export of aiperf. Raises UnknownResult, naming the field."""
    version = document["schema_version"]
    if not isinstance(version, str) or version.split(".", 1)[0] != "1":
        said = shown(version) if isinstance(version, str) else "no text"
        raise UnknownResult("schema_version", f"must be 1.x, and is {said}")
    completed, failed = _requests(document)
    measured, source = counts(completed, failed), None
    duration = _duration(measured if completed else Measured(), document)
    if completed:
        source = _measure(measured, document, completed)
    started = utc_microseconds("start_time", document.get("start_time"))
    ended = utc_microseconds("end_time", document.get("end_time"))
    if started is not None and ended is not None and ended < started:
        raise UnknownResult("end_time", "must not be before start_time")
    return ToolResult(
        tool="aiperf",
        mode=Mode.SERVE,
        sha256=sha256,
        measurements=measured.found(),
        tool_version=text_or_none(document["aiperf_version"]),
        model=_model(document),
        requests_completed=completed,
        requests_failed=failed,
        started_us=started,
        ended_us=ended,
        duration_seconds=duration,
        token_count_source=source,
        invalid_reason=_why_invalid(document, completed, failed),
        claims=claims_of({key: document[key] for key in ("benchmark_id",) if key in document}),
        raw=kept(document),
    )


def _why_invalid(document: Mapping[str, Any], completed: int | None, failed: int | None) -> str | None:
    if document.get("was_cancelled"):
        return "aiperf says that the run was cancelled"
    if document.get("is_complete") is False:
        return "aiperf says that the run is not complete"
    return None if completed else why_nothing(failed)


def _block(document: Mapping[str, Any], key: str, units: Mapping[str, float]) -> tuple[Mapping[str, Any], float]:
    """A metric's block, empty where it is absent, and by how much its unit is smaller than ours."""
    block = document.get(key)
    if block is None:
        return {}, 1.0
    if not isinstance(block, dict):
        raise UnknownResult(key, "must be an object with unit and avg")
    unit = block.get("unit")
    if not isinstance(unit, str) or unit not in units:
        said = shown(unit) if isinstance(unit, str) else "none"
        raise UnknownResult(f"{key}.unit", f"must be one of {', '.join(units)}, and is {said}")
    return block, units[unit]


def _count(document: Mapping[str, Any], key: str, units: Mapping[str, float]) -> int | None:
    return whole(f"{key}.avg", _block(document, key, units)[0].get("avg"))


def _requests(document: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Requests that succeeded and that failed. aiperf leaves a count of nothing out: `request_count` where all failed
    and `error_request_count` where none did; `completed_request_count` is their sum."""
    succeeded = _count(document, "request_count", _REQUESTS)
    failed = _count(document, "error_request_count", _REQUESTS)
    both = _count(document, "completed_request_count", _REQUESTS)
    if both is not None:
        succeeded = succeeded if succeeded is not None else max(0, both - (failed or 0))
        failed = failed if failed is not None else max(0, both - succeeded)
    elif failed is None and document.get("error_summary") == []:
        failed = 0
    return succeeded, failed


def _duration(measured: Measured, document: Mapping[str, Any]) -> float | None:
    block, per = _block(document, "benchmark_duration", _PER)
    return measured.add("duration", "benchmark_duration.avg", block.get("avg"), per=per)


def _measure(measured: Measured, document: Mapping[str, Any], completed: int) -> str | None:
    """Takes all metrics; returns whose count of tokens they stand on."""
    for key, metric in _TIMES.items():
        block, per = _block(document, key, _PER)
        for word, value in block.items():
            stat = _stat(word)
            if stat is not None:
                measured.add(metric, f"{key}.{word}", value, stat=stat, per=per)
    rates = {}
    for key, metric in _RATES.items():
        block, _ = _block(document, key, {"requests/sec": 1.0})
        rates[key] = measured.add(metric, f"{key}.avg", block.get("avg"))
    block, per = _block(document, "spec_decode_overall_draft_acceptance_rate", {"%": 100.0, "ratio": 1.0})
    measured.add(
        "spec_decode_acceptance_rate", "spec_decode_overall_draft_acceptance_rate.avg", block.get("avg"), per=per
    )
    rate = rates["request_throughput"]
    return _tokens(measured, document, completed / rate if rate else None)


def _stat(word: str) -> str | None:
    if word in {"avg", "std"}:
        return {"avg": "mean", "std": "std"}[word]
    return percentile(word[1:16]) if word[:1] == "p" else None


def _tokens(measured: Measured, document: Mapping[str, Any], window: float | None) -> str | None:
    prompt = _count(document, "total_usage_prompt_tokens", _TOKENS)
    output = _count(document, "total_usage_completion_tokens", _TOKENS)
    if output is None:
        return _clients_tokens(measured, document)
    if prompt is None:
        prompt = _count(document, "total_isl", _TOKENS)
    measured.add("input_tokens", "total_usage_prompt_tokens.avg", prompt)
    measured.add("output_tokens", "total_usage_completion_tokens.avg", output)
    if window is not None:
        measured.add("output_token_throughput", "total_usage_completion_tokens.avg", output / window)
        if prompt is not None:
            measured.add("input_token_throughput", "total_usage_prompt_tokens.avg", prompt / window)
            measured.add("total_token_throughput", "total_usage_completion_tokens.avg", (prompt + output) / window)
    return _SERVER


def _clients_tokens(measured: Measured, document: Mapping[str, Any]) -> str | None:
    output = _count(document, "total_osl", _TOKENS)
    if output is None:
        output = _count(document, "total_output_tokens", _TOKENS)
    measured.add("input_tokens", "total_isl.avg", _count(document, "total_isl", _TOKENS))
    measured.add("output_tokens", "total_osl.avg", output)
    for key in ("input_token_throughput", "output_token_throughput", "total_token_throughput"):
        block, _ = _block(document, key, {"tokens/sec": 1.0})
        measured.add(key, f"{key}.avg", block.get("avg"))
    return None if output is None else _CLIENT


def _model(document: Mapping[str, Any]) -> str | None:
    """The one model that was asked; None where there are several or it is not said."""
    asked: Any = document
    for key in ("input_config", "models", "items"):
        asked = asked.get(key) if isinstance(asked, dict) else None
    if not isinstance(asked, list) or len(asked) != 1 or not isinstance(asked[0], dict):
        return None
    return text_or_none(asked[0].get("name"))
