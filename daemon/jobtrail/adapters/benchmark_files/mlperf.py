"""MLPerf loadgen, `mlperf_log_detail.txt`: lines of `:::MLLOG {json}` (loadgen 6.0.17 was at hand).

Whether the run counts is `result_validity`. All latencies are in ns. A sample, of which a query may hold several, is a
request here. How many failed is not said: loadgen waits for each.

Keys to keep away from, as loadgen's own source has them: `test_datetime` ends in Z and is local time, whereas
power_begin and power_end have no zone and are UTC; `result_token_throughput` divides by ns and calls it seconds, and
`result_token_throughput_with_loadgen_overhead` divides by when the last query was issued rather than answered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobtrail.adapters.benchmark_files.documents import parsed
from jobtrail.adapters.benchmark_files.keeping import claims_of, kept, plain, text_or_none
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

MARK = ":::MLLOG"
SUMMARY_TITLE = "MLPerf Results Summary"
MAX_LINES = 50_000
_LINE = re.compile(rf"^{MARK}[ \t]*(\{{[^\n]*)$", re.MULTILINE)
_NOT_FINITE = re.compile(r'("value": ?)-?(?:nan|inf)\b')  # as C++ prints them, which is no JSON
_NS = 1e9
_REQUEST_RATES = ("result_completed_samples_per_sec", "result_samples_per_second", "result_qps_with_loadgen_overhead")
_TOKEN_RATES = ("result_completed_tokens_per_second", "result_tokens_per_second")  # served, and all at once
_MEANS = {
    "result_mean_latency_ns": "request_latency",
    "result_first_token_mean_latency_ns": "time_to_first_token",
    "result_time_to_output_token_mean": "time_per_output_token",
}
_PERCENTILES = (
    (re.compile(r"result_([0-9.]{1,8})_percentile_latency_ns"), "request_latency"),
    (re.compile(r"result_first_token_([0-9.]{1,8})_percentile_latency_ns"), "time_to_first_token"),
    # Of each request: its time after the first token, over the tokens after it.
    (re.compile(r"result_time_per_output_token_([0-9.]{1,8})_percentile_ns"), "time_per_output_token"),
)
_LONGEST_KEY = 128
_CHECKS = ("result_perf_constraints_met", "result_min_duration_met", "result_min_queries_met", "early_stopping_met")
_CLAIMS = ("sut_name", "qsl_name", "effective_scenario", "effective_test_mode")
_MEASURING = frozenset({"PerformanceOnly", "SubmissionRun", "FindPeakPerformance"})
_LEFT_OUT = frozenset({"loadgen_file_sha1", "loaded_qsl_set"})  # digests of loadgen's sources; numbers of samples


def read(text: str, sha256: str) -> ToolResult:
    """The result in a detail log. Raises UnknownResult, naming the key."""
    said = _said(text)
    if "result_validity" not in said:
        raise UnknownResult(
            "result_validity", "is missing: the run did not come to its end, or measured no performance"
        )
    completed = _samples(said)
    measured = counts(completed, None)
    started, ended = _power_time(said, "power_begin"), _power_time(said, "power_end")
    duration = None
    if started is not None and ended is not None:
        if ended < started:
            raise UnknownResult("power_end", "must not be before power_begin")
        duration = (measured if completed else Measured()).add("duration", "power_end", (ended - started) / 1e6)
    if completed:
        _measure(measured, said)
    return ToolResult(
        tool="mlperf-loadgen",
        mode=Mode.EXTERNAL,
        sha256=sha256,
        measurements=measured.found(),
        tool_version=_version(said),
        requests_completed=completed,
        started_us=started,
        ended_us=ended,
        duration_seconds=duration,
        invalid_reason=_why_invalid(said, completed),
        claims=claims_of({key: said[key] for key in _CLAIMS if key in said}),
        raw=kept(said, without=_LEFT_OUT),
    )


def _said(text: str) -> dict[str, Any]:
    """The value of each key, the last one where it stands several times."""
    if text.count(MARK) > MAX_LINES:
        raise UnknownResult("", f"the log has more than {MAX_LINES} lines of {MARK}")
    said: dict[str, Any] = {}
    for match in _LINE.finditer(text):
        try:
            line = parsed(_NOT_FINITE.sub(r"\1null", match[1]))
        except json.JSONDecodeError as error:
            number = text.count("\n", 0, match.start()) + 1
            raise UnknownResult(f"line {number}", f"is no JSON after {MARK}: {error.msg}") from None
        key = line.get("key")
        if isinstance(key, str) and len(key) <= _LONGEST_KEY:
            said[key] = line.get("value")
    return said


def _samples(said: Mapping[str, Any]) -> int | None:
    queries = whole("result_query_count", said.get("result_query_count"))
    each = whole("generated_samples_per_query", said.get("generated_samples_per_query"))
    return None if queries is None else queries * (1 if each is None else each)


def _measure(measured: Measured, said: Mapping[str, Any]) -> None:
    for metric, keys in (("request_throughput", _REQUEST_RATES), ("output_token_throughput", _TOKEN_RATES)):
        for key in keys:
            measured.add(metric, key, said.get(key))
    for key, metric in _MEANS.items():
        measured.add(metric, key, said.get(key), stat="mean", per=_NS)
    for key, value in said.items():
        for pattern, metric in _PERCENTILES:
            match = pattern.fullmatch(key)
            stat = percentile(match[1]) if match else None
            if stat is not None:
                measured.add(metric, key, value, stat=stat, per=_NS)


def _why_invalid(said: Mapping[str, Any], completed: int | None) -> str | None:
    mode = said.get("effective_test_mode", said.get("requested_test_mode"))
    if mode is not None and (not isinstance(mode, str) or mode not in _MEASURING):
        return f"the mode {plain(str(mode), 40)} measures no performance"
    if said["result_validity"] != "VALID":
        reason = text_or_none(said.get("result_invalid_reason"), 500)
        unmet = ", ".join(key for key in _CHECKS if said.get(key) is False)
        return "result_validity is not VALID" + (f": {reason or unmet}" if reason or unmet else "")
    errors = whole("num_errors", said.get("num_errors"))
    if errors:
        return f"the log counts {errors} errors"
    return None if completed else why_nothing(None)


def _power_time(said: Mapping[str, Any], key: str) -> int | None:
    value = said.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            when = datetime.strptime(value, "%m-%d-%Y %H:%M:%S.%f").replace(tzinfo=UTC)
        except ValueError:
            pass
        else:
            return utc_microseconds(key, when.isoformat())
    raise UnknownResult(key, "must be a time such as 11-21-2026 01:47:46.909")


def _version(said: Mapping[str, Any]) -> str | None:
    """The release, without the commit that follows ` @ `."""
    version = said.get("loadgen_version")
    return text_or_none(version.split(" @ ", 1)[0]) if isinstance(version, str) else None
