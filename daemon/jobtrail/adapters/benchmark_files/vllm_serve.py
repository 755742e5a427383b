"""`vllm bench serve`, versions 0.8.5 to 0.32.0: load on a server over HTTP.

The file is one flat object, written in this order: what was asked for (date, endpoint_type, backend, label, model_id,
tokenizer_id, num_prompts), then each `--metadata key=value`, then the traffic and the results. So metadata may have
written, and overwritten, all that comes before it, and nothing that comes after. Metadata values are always texts and
measured values never are, which tells them apart whatever the order: a text is a claim, a number a measurement.
model_id may be either, hence it is a claim, and `model` stays unknown. `date` is in local time without a zone and taken
when the run had ended, so it is no time to calculate with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobtrail.adapters.benchmark_files.keeping import claims_of, kept
from jobtrail.adapters.benchmark_files.quantities import Measured, counts, percentile, whole, why_nothing
from jobtrail.domain.benchmarks.report import Mode, ToolResult

SHAPE = ("duration", "completed", "request_throughput", "total_token_throughput")  # in all versions
_TIMES = {
    "ttft": "time_to_first_token",
    "tpot": "time_per_output_token",  # of each request: what came after the first token, over the tokens after it
    "itl": "inter_token_latency",  # all gaps of all requests pooled
    "e2el": "request_latency",
}
_STAT_KEY = re.compile(r"(mean|median|std|p[0-9]{1,2}(?:\.[0-9]{1,3})?)_(ttft|tpot|itl|e2el)_ms")
_LONGEST_STAT_KEY = 32
_RATES = {
    "request_throughput": "request_throughput",
    "output_throughput": "output_token_throughput",
    "total_token_throughput": "total_token_throughput",
}
_WRITTEN_AS_TEXT = "request_rate"  # "inf", or a number; no metadata reaches it
_GOODPUT_KEYS = ("request_goodput", "request_goodput:")  # 0.8.5 misspells it


def read(document: Mapping[str, Any], sha256: str) -> ToolResult:
    """The result in a file of `vllm bench serve`. Raises UnknownResult, naming the field."""
    completed = whole("completed", document["completed"])
    failed = _failed(document, completed)
    measured = counts(completed, failed)
    duration = None
    if completed:
        _measure(measured, document)
        duration = measured.add("duration", "duration", document["duration"])
    else:
        duration = Measured().add("duration", "duration", document["duration"])
    return ToolResult(
        tool="vllm",
        mode=Mode.SERVE,
        sha256=sha256,
        measurements=measured.found(),
        requests_completed=completed,
        requests_failed=failed,
        duration_seconds=duration,
        invalid_reason=None if completed else why_nothing(failed),
        claims=claims_of({key: value for key, value in document.items() if key != _WRITTEN_AS_TEXT}),
        raw=kept(document, lists=False),
    )


def _failed(document: Mapping[str, Any], completed: int | None) -> int | None:
    """`failed` is there since 0.12.0; before, what was asked for and not completed has failed."""
    said = _number(document, "failed")
    if said is not None:
        return whole("failed", said)
    asked = whole("num_prompts", _number(document, "num_prompts"))
    return asked - completed if asked is not None and completed is not None and asked >= completed else None


def _measure(measured: Measured, document: Mapping[str, Any]) -> None:
    for key, metric in _RATES.items():
        measured.add(metric, key, document.get(key))
    for key in _GOODPUT_KEYS:
        measured.add("request_goodput", key, _number(document, key))
    measured.add("input_tokens", "total_input_tokens", document.get("total_input_tokens"))
    if document.get("output_throughput") is not None:  # embeddings and scores have no output to count
        measured.add("output_tokens", "total_output_tokens", document.get("total_output_tokens"))
    measured.add(
        "spec_decode_acceptance_rate",
        "spec_decode_acceptance_rate",
        _number(document, "spec_decode_acceptance_rate"),
        per=100,
    )
    for key in document:
        match = _STAT_KEY.fullmatch(key[:_LONGEST_STAT_KEY])
        if match is not None:
            _time(measured, document, key, match[1], match[2])


def _time(measured: Measured, document: Mapping[str, Any], key: str, word: str, short: str) -> None:
    if word == "median" and _number(document, f"p50_{short}_ms") is not None:
        return
    stat = {"median": "p50", "mean": "mean", "std": "std"}.get(word) or percentile(word[1:])
    if stat is not None:
        measured.add(_TIMES[short], key, _number(document, key), stat=stat, per=1000)


def _number(document: Mapping[str, Any], key: str) -> Any:
    """The value of a key that a version may lack, so that metadata may have written it: as a text, which is none."""
    value = document.get(key)
    return None if isinstance(value, str) else value
