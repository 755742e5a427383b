"""One run in numbers: the medians over its repeats, whether they count, and what they may be compared with."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence

import msgspec

from jobtrail.domain.benchmarks.fingerprint import fingerprint, fingerprint_parts, short
from jobtrail.domain.benchmarks.metrics import METRICS, PERCENTILE, STATS, Direction, Measurement
from jobtrail.domain.benchmarks.report import BenchmarkReport, Repeat, Status, ToolResult
from jobtrail.domain.benchmarks.window_energy import Span, union

TOKEN_TOLERANCE = 0.01  # by how much two counts of the same tokens may differ
LARGEST = 1e18  # no machine gives more of anything here, and medians of less are numbers
_PERCENTILE = re.compile(PERCENTILE)
_ERROR_RATE = "error_rate"  # is of the whole run, no median
_COUNTED_ANEW = ("client", "mixed")


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is listed and compared.

    `measurements` are medians over the repeats that measured the metric, counts and times too; `error_rate`, among
    them as well, is over all requests of all repeats. `windows` are the times of the repeats that count, sorted and
    apart, and `output_tokens` is the sum over the same repeats; the server's own counter, which is of all repeats,
    where all count and the client counted anew or not in each; None where nobody knows. `notes` are sentences on what
    to know before trusting a number.
    """

    status: Status
    reason: str | None
    error_rate: float | None
    measurements: tuple[Measurement, ...]
    fingerprint: str
    fingerprint_without_version: str
    fingerprint_parts: dict[str, str]
    hardware: str  # the first 8 hex digits of the fingerprint
    windows: tuple[Span, ...] = ()
    output_tokens: float | None = None
    token_count_source: str | None = None  # server | client | mixed
    notes: tuple[str, ...] = ()


def summarise(report: BenchmarkReport) -> RunSummary:
    """The summary of a reported run. Only an ok run in which no request succeeded, or that has no valid result,
    changes its status: it becomes invalid, without a number."""
    repeats, notes = _countable(report.repeats)
    counted = [result for _, result in repeats]
    error_rate = _error_rate(report.repeats)
    status, reason = _status(report, counted)
    measurements: list[Measurement] = []
    if counted:
        measurements, more = _medians(counted, len(report.repeats))
        notes += more
        if error_rate is not None:
            measurements.append(Measurement(metric=_ERROR_RATE, value=error_rate))
    source = _count_source(counted)
    tokens = _tokens(report, counted, source, notes)
    parts = fingerprint_parts(report)
    digest = fingerprint(parts)
    return RunSummary(
        status=status,
        reason=reason,
        error_rate=error_rate,
        measurements=tuple(measurements),
        fingerprint=digest,
        fingerprint_without_version=fingerprint(parts, with_version=False),
        fingerprint_parts=parts,
        hardware=short(digest),
        windows=_windows(report, [repeat for repeat, _ in repeats]),
        output_tokens=tokens,
        token_count_source=source,
        notes=tuple(notes),
    )


def values_of(result: ToolResult) -> dict[tuple[str, str], float]:
    """What a result measured, by metric and statistic, without what is no measurement: a name or statistic outside the
    vocabulary, a number that is not finite, and a time per something that is not above zero, which tools write where
    they measured nothing."""
    return {(one.metric, one.stat): one.value for one in result.measurements if _why_not(one) is None}


def _why_not(one: Measurement) -> str | None:
    metric = METRICS.get(one.metric)
    if metric is None:
        return "is no metric of the vocabulary"
    if one.stat not in STATS and _PERCENTILE.match(one.stat) is None:
        return f"has the statistic {one.stat!r}; allowed are {', '.join(STATS)} and percentiles such as p99.9"
    if not 0 <= one.value <= LARGEST:  # not a number compares false
        return f"is {one.value}; allowed are 0 to {LARGEST:.0e}"
    if one.value == 0 and one.stat != "std" and metric.unit == "s" and metric.direction is Direction.LOWER:
        return "is 0 s, which tools write where they measured nothing"
    return None


def _countable(repeats: Sequence[Repeat]) -> tuple[list[tuple[Repeat, ToolResult]], list[str]]:
    """The repeats whose results mean something, and notes on the others."""
    counted: list[tuple[Repeat, ToolResult]] = []
    notes: list[str] = []
    for number, repeat in enumerate(repeats, start=1):
        result = repeat.result
        if result is None:
            notes.append(f"repeat {number} left no result")
        elif (problem := _problem(result)) is not None:
            notes.append(f"repeat {number} does not count: {problem}")
        else:
            counted.append((repeat, result))
    return counted, notes


def _problem(result: ToolResult) -> str | None:
    return "no request succeeded" if result.requests_completed == 0 else result.invalid_reason


def _status(report: BenchmarkReport, counted: Sequence[ToolResult]) -> tuple[Status, str | None]:
    if report.status is not Status.OK or counted:
        return report.status, report.reason
    problems = [_problem(repeat.result) for repeat in report.repeats if repeat.result is not None]
    return Status.INVALID, next((problem for problem in problems if problem), "there is no result")


def _error_rate(repeats: Sequence[Repeat]) -> float | None:
    """Failed requests over all requests of the repeats that counted both; None where none did."""
    completed = failed = 0
    for repeat in repeats:
        if (result := repeat.result) is None or result.requests_completed is None or result.requests_failed is None:
            continue
        completed += max(result.requests_completed, 0)
        failed += max(result.requests_failed, 0)
    return failed / (completed + failed) if completed + failed else None


def _medians(results: Sequence[ToolResult], repeats: int) -> tuple[list[Measurement], list[str]]:
    """The median of each metric and statistic in order of name, and notes on what is not in, or not of all repeats."""
    gathered: dict[tuple[str, str], list[float]] = {}
    notes = list(dict.fromkeys(_refusals(results)))
    for result in results:
        for key, value in values_of(result).items():
            if key[0] != _ERROR_RATE:
                gathered.setdefault(key, []).append(value)
    notes += [
        f"{metric} {stat} was measured in {len(values)} of {repeats} repeats"
        for (metric, stat), values in sorted(gathered.items())
        if len(values) < repeats
    ]
    return [
        Measurement(metric=metric, stat=stat, value=statistics.median(values))
        for (metric, stat), values in sorted(gathered.items())
    ], notes


def _refusals(results: Sequence[ToolResult]) -> Iterator[str]:
    for result in results:
        for one in result.measurements:
            if (reason := _why_not(one)) is not None:
                yield f"{one.metric} {one.stat} is left out: it {reason}"


def _windows(report: BenchmarkReport, repeats: Sequence[Repeat]) -> tuple[Span, ...]:
    """When the repeats were, within the run's own time: for that alone a job is known to have run."""
    return union(
        (max(repeat.started_us, report.started_us), min(repeat.ended_us, report.ended_us)) for repeat in repeats
    )


def _tokens(
    report: BenchmarkReport, counted: Sequence[ToolResult], source: str | None, notes: list[str]
) -> float | None:
    """Output tokens of the repeats that count. The server's own counter is of all loads, those that failed too."""
    tokens, server = _output_tokens(counted), report.server_output_tokens
    if server is None or len(counted) < len(report.repeats):
        return tokens
    notes += _token_notes(server, tokens)
    return float(server) if tokens is None or source in _COUNTED_ANEW else tokens


def _output_tokens(results: Sequence[ToolResult]) -> float | None:
    """Tokens that the results together say, None unless each one counted them."""
    counts = [values_of(result).get(("output_tokens", "value")) for result in results]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _count_source(results: Sequence[ToolResult]) -> str | None:
    sources = {result.token_count_source for result in results if result.token_count_source is not None}
    return "mixed" if len(sources) > 1 else next(iter(sources), None)


def _token_notes(server: int, tokens: float | None) -> list[str]:
    if tokens is None or abs(tokens - server) <= TOKEN_TOLERANCE * server:
        return []
    change = f", {(tokens - server) / server:+.1%}" if server else ""
    return [f"the client counted {tokens:.0f} output tokens, the server's own counter {server}{change}"]
