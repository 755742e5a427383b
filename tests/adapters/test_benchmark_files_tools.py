"""aiperf, guidellm and MLPerf loadgen: numbers by their meaning, not by their names."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from jobtrail.adapters.benchmark_files import read_results
from jobtrail.domain.benchmarks.metrics import METRICS, STATS
from jobtrail.domain.benchmarks.report import MAX_RAW_BYTES, Mode
from jobtrail.domain.errors import UnknownResult
from tests.adapters.benchmark_captures import (
    AIPERF,
    GUIDELLM,
    MLPERF,
    MLPERF_SUMMARY,
    content,
    document,
    one,
    values,
)


def _microseconds(*when: int) -> int:
    return round(datetime(*when, tzinfo=UTC).timestamp() * 1e6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [AIPERF, GUIDELLM, MLPERF])
def test_all_measurements_are_of_the_vocabulary(name: str) -> None:
    for measurement in one(name).measurements:
        assert measurement.metric in METRICS
        assert measurement.stat in STATS or measurement.stat[0] == "p"


# ---- aiperf


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("time_to_first_token", "time_to_first_token"),
        ("inter_token_latency", "time_per_output_token"),
        ("inter_chunk_latency", "inter_token_latency"),
        ("request_latency", "request_latency"),
    ],
)
def test_aiperfs_times_by_meaning(theirs: str, ours: str) -> None:
    block, found = document(AIPERF)[theirs], values(one(AIPERF))
    assert block["unit"] == "ms"
    for word, stat in {"avg": "mean", "std": "std", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}.items():
        assert found[f"{ours}.{stat}"] == pytest.approx(block[word] / 1000, rel=1e-12)


def test_aiperfs_inter_token_latency_is_of_each_request() -> None:
    """(whole - first) / (tokens - 1), by the capture's own means of requests of nearly equal length."""
    capture = document(AIPERF)
    rest = capture["request_latency"]["avg"] - capture["time_to_first_token"]["avg"]
    per_token = rest / (capture["output_sequence_length"]["avg"] - 1)
    assert values(one(AIPERF))["time_per_output_token.mean"] == pytest.approx(per_token / 1000, rel=0.05)


def test_aiperfs_chunk_of_zero_is_absent() -> None:
    """Two chunks in one packet have no time between them: p1 of the capture is 0."""
    assert document(AIPERF)["inter_chunk_latency"]["p1"] == 0
    assert "inter_token_latency.p1" not in values(one(AIPERF))
    assert "inter_token_latency.p5" in values(one(AIPERF))


def test_aiperfs_tokens_are_the_servers() -> None:
    """aiperf counted 1495 output tokens by splitting the text anew; the server's usage says 1280."""
    capture, result = document(AIPERF), one(AIPERF)
    found = values(result)
    assert capture["total_osl"]["avg"] == 1495
    assert (found["output_tokens.value"], found["input_tokens.value"]) == (1280, 2560)
    assert result.token_count_source == "server"
    seconds = (result.ended_us - result.started_us) / 1e6  # type: ignore[operator]
    assert found["output_token_throughput.value"] == pytest.approx(1280 / seconds, rel=1e-6)
    assert found["total_token_throughput.value"] == pytest.approx(3840 / seconds, rel=1e-6)
    assert found["input_token_throughput.value"] == pytest.approx(capture["input_token_throughput"]["avg"], rel=1e-9)


def test_aiperf_without_usage_counts_itself() -> None:
    capture = {key: value for key, value in document(AIPERF).items() if "usage" not in key}
    result = one(AIPERF, capture)
    assert result.token_count_source == "client"
    assert values(result)["output_tokens.value"] == 1495
    assert values(result)["output_token_throughput.value"] == capture["output_token_throughput"]["avg"]


def test_aiperf_without_a_window_has_tokens_and_no_rate_of_them() -> None:
    capture = document(AIPERF)
    del capture["request_throughput"], capture["total_usage_prompt_tokens"]
    found = values(one(AIPERF, capture))
    assert (found["output_tokens.value"], found["input_tokens.value"]) == (1280, 2560)
    assert not [name for name in found if name.endswith("token_throughput.value")]


def test_aiperf_with_neither_count_has_none() -> None:
    capture = {k: v for k, v in document(AIPERF).items() if "usage" not in k and "token" not in k and "osl" not in k}
    result = one(AIPERF, capture)
    assert result.token_count_source is None
    assert "output_tokens.value" not in values(result)


def test_aiperfs_goodput_and_acceptance() -> None:
    capture = document(AIPERF) | {
        "goodput": {"unit": "requests/sec", "avg": 7.5},
        "spec_decode_overall_draft_acceptance_rate": {"unit": "%", "avg": 62.5},
    }
    found = values(one(AIPERF, capture))
    assert found["request_goodput.value"] == 7.5
    assert found["spec_decode_acceptance_rate.value"] == pytest.approx(0.625)


def test_several_models_are_none() -> None:
    capture = document(AIPERF)
    capture["input_config"]["models"]["items"].append({"name": "another"})
    assert one(AIPERF, capture).model is None


def test_aiperfs_times_are_utc() -> None:
    result = one(AIPERF)
    assert result.started_us == _microseconds(2026, 11, 21, 1, 46, 6, 414958)
    assert result.ended_us == _microseconds(2026, 11, 21, 1, 46, 10, 631866)
    assert result.duration_seconds == pytest.approx(4.190327808)
    assert one(AIPERF, document(AIPERF) | {"start_time": "2026-11-21T02:46:06.414958+01:00"}).started_us == (
        result.started_us
    )


def test_aiperf_says_what_it_is() -> None:
    result = one(AIPERF)
    assert (result.tool, result.tool_version, result.model) == ("aiperf", "0.13.0", "tiny-llama")
    assert result.mode is Mode.SERVE
    assert (result.requests_completed, result.requests_failed, result.invalid_reason) == (40, 0, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"was_cancelled": True}, "was cancelled"), ({"is_complete": False}, "is not complete")],
)
def test_aiperf_cancelled_or_incomplete_is_invalid(change: dict[str, Any], reason: str) -> None:
    assert reason in str(one(AIPERF, document(AIPERF) | change).invalid_reason)


def test_aiperf_with_failures() -> None:
    """A count of nothing is left out by aiperf: error_request_count without errors, request_count without success."""
    some = document(AIPERF) | {"error_request_count": {"unit": "requests", "avg": 10.0}}
    some["completed_request_count"] = {"unit": "requests", "avg": 50.0}
    assert values(one(AIPERF, some))["error_rate.value"] == pytest.approx(0.2)
    none = {key: value for key, value in some.items() if key != "request_count"}
    none["completed_request_count"] = {"unit": "requests", "avg": 10.0}
    result = one(AIPERF, none)
    assert result.invalid_reason == "all 10 requests failed"
    assert values(result) == {"requests_completed.value": 0, "requests_failed.value": 10}


def test_aiperfs_failures_are_unknown_where_nothing_says_them() -> None:
    capture = document(AIPERF)
    del capture["completed_request_count"]
    assert one(AIPERF, capture).requests_failed == 0  # error_summary is empty
    del capture["error_summary"]
    assert one(AIPERF, capture).requests_failed is None


def test_aiperfs_unit_is_looked_at() -> None:
    capture = document(AIPERF)
    micros = {
        key: value * 1000 if isinstance(value, float) else value for key, value in capture["request_latency"].items()
    }
    found = values(one(AIPERF, capture | {"request_latency": micros | {"unit": "us"}}))
    assert found["request_latency.p50"] == pytest.approx(capture["request_latency"]["p50"] / 1000)
    with pytest.raises(
        UnknownResult, match=r"request_latency\.unit: must be one of ns, us, ms, sec, s, and is 'weeks'"
    ):
        one(AIPERF, capture | {"request_latency": micros | {"unit": "weeks"}})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema_version": "2.0"}, "schema_version: must be 1.x, and is '2.0'"),
        ({"start_time": "yesterday"}, "start_time: must be a time such as"),
        ({"end_time": "2026-11-21T01:46:05"}, "end_time: must not be before start_time"),
        ({"request_count": 40}, "request_count: must be an object with unit and avg"),
        ({"request_count": {"unit": "requests", "avg": 40.5}}, r"request_count\.avg: must be a whole number"),
        ({"time_to_first_token": {"unit": "ms", "p50": -3}}, r"time_to_first_token\.p50: must be a number from 0"),
    ],
)
def test_aiperfs_errors_are_named(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnknownResult, match=f"^{AIPERF}: {problem}"):
        one(AIPERF, document(AIPERF) | change)


def test_secrets_of_a_command_line_are_not_kept() -> None:
    capture = document(AIPERF)
    capture["run_info"]["cli_command"] += " --api-key hunter2"
    capture["input_config"]["endpoint"]["api_key"] = "hunter2"
    capture["input_config"]["endpoint"]["headers"] = {"Authorization": "Bearer hunter2"}
    raw = one(AIPERF, capture).raw
    assert "hunter2" not in json.dumps(raw)
    assert "input_config.endpoint.api_key: may hold a secret" in raw["jobtrail_cut"]
    assert raw["input_config"]["endpoint"]["urls"] == ["http://127.0.0.1:18000"]


# ---- guidellm


def _benchmark() -> dict[str, Any]:
    return document(GUIDELLM)["benchmarks"][0]


@pytest.mark.parametrize(
    ("theirs", "ours", "per"),
    [
        ("time_to_first_token_ms", "time_to_first_token", 1000),
        ("inter_token_latency_ms", "time_per_output_token", 1000),
        ("time_per_output_token_ms", "normalized_time_per_output_token", 1000),
        ("request_latency", "request_latency", 1),
    ],
)
def test_guidellms_times_by_meaning(theirs: str, ours: str, per: float) -> None:
    block, found = _benchmark()["metrics"][theirs]["successful"], values(one(GUIDELLM))
    assert found[f"{ours}.mean"] == pytest.approx(block["mean"] / per, rel=1e-12)
    assert found[f"{ours}.p50"] == pytest.approx(block["median"] / per, rel=1e-12)
    assert found[f"{ours}.std"] == pytest.approx(block["std_dev"] / per, rel=1e-12)
    for theirs_name, stat in {"p01": "p1", "p90": "p90", "p99": "p99", "p999": "p99.9", "p001": "p0.1"}.items():
        assert found[f"{ours}.{stat}"] == pytest.approx(block["percentiles"][theirs_name] / per, rel=1e-12)


def test_guidellms_names_checked_on_one_request() -> None:
    """What the two times per token mean, by a single request of the capture."""
    request = _benchmark()["requests"]["successful"][0]
    whole, first, tokens = (
        request["request_latency"] * 1000,
        request["time_to_first_token_ms"],
        request["output_tokens"],
    )
    assert request["inter_token_latency_ms"] == pytest.approx((whole - first) / (tokens - 1), rel=0.01)
    assert request["time_per_output_token_ms"] == pytest.approx(whole / tokens, rel=0.01)


def test_guidellms_rates_are_means_over_the_duration() -> None:
    found, seconds = values(one(GUIDELLM)), _benchmark()["duration"]
    assert found["request_throughput.value"] == pytest.approx(30 / seconds)
    assert found["output_token_throughput.value"] == pytest.approx(960 / seconds)
    assert found["input_token_throughput.value"] == pytest.approx(2190 / seconds)
    assert found["total_token_throughput.value"] == pytest.approx(3150 / seconds)
    assert (found["output_tokens.value"], found["input_tokens.value"]) == (960, 2190)


def test_guidellm_says_what_it_is() -> None:
    result = one(GUIDELLM)
    assert (result.tool, result.tool_version, result.model) == ("guidellm", "0.8.1", "tiny-llama")
    assert result.started_us == round(_benchmark()["start_time"] * 1e6)
    assert result.ended_us == round(_benchmark()["end_time"] * 1e6)
    assert (result.requests_completed, result.requests_failed, result.invalid_reason) == (30, 0, None)
    assert result.token_count_source is None  # the file does not say


def test_guidellm_told_to_count_itself() -> None:
    capture = document(GUIDELLM)
    capture["benchmarks"][0]["config"]["prefer_response_metrics"] = False
    assert one(GUIDELLM, capture).token_count_source == "client"


def test_several_benchmarks_are_several_results() -> None:
    capture = document(GUIDELLM)
    failed = copy.deepcopy(capture["benchmarks"][0])
    failed["metrics"]["request_totals"] = {"successful": 0, "errored": 12, "incomplete": 3, "total": 15}
    capture["benchmarks"] += [failed, capture["benchmarks"][0]]
    capture["config"]["metadata"]["labels"] = {"site": "north"}
    results = read_results(GUIDELLM, json.dumps(capture).encode())
    assert [result.requests_completed for result in results] == [30, 0, 30]
    assert len({result.sha256 for result in results}) == 3
    assert results == read_results(GUIDELLM, json.dumps(capture).encode())
    assert results[1].invalid_reason == "all 12 requests failed"
    assert values(results[1]) == {"requests_completed.value": 0, "requests_failed.value": 12}
    assert all(result.claims["site"] == "north" for result in results)


def test_guidellms_raw_is_bounded_and_says_what_was_cut() -> None:
    raw = one(GUIDELLM).raw
    assert len(json.dumps(raw)) <= MAX_RAW_BYTES
    assert "requests" not in raw
    assert "requests: left out" in raw["jobtrail_cut"]
    assert [name for name in raw["jobtrail_cut"] if name.startswith("metrics.text.") and name.endswith(" bytes")]
    assert raw["metrics"]["time_to_first_token_ms"] == _benchmark()["metrics"]["time_to_first_token_ms"]


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("metadata", "version"), 3, r"metadata\.version: must be 2"),
        (("benchmarks",), [], "benchmarks: must be a list of 1 to"),
        (("benchmarks", 0, "metrics"), None, r"benchmarks\[0\]\.metrics: is missing"),
        (("benchmarks", 0, "start_time"), 12.0, r"benchmarks\[0\]\.start_time: must be a time between"),
        (("benchmarks", 0, "end_time"), 1795225680.0, r"benchmarks\[0\]\.end_time: must not be before"),
        (
            ("benchmarks", 0, "metrics", "request_latency", "successful", "mean"),
            "fast",
            r"benchmarks\[0\]\.metrics\.request_latency\.successful\.mean: must be a number, and is a text",
        ),
    ],
)
def test_guidellms_errors_are_named(path: tuple[Any, ...], value: Any, problem: str) -> None:
    capture: Any = document(GUIDELLM)
    place = capture
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(UnknownResult, match=f"^{GUIDELLM}: {problem}"):
        one(GUIDELLM, capture)


# ---- MLPerf loadgen


def _said() -> dict[str, Any]:
    lines = content(MLPERF).decode().splitlines()
    records = (json.loads(line.removeprefix(":::MLLOG ")) for line in lines)
    return {record["key"]: record["value"] for record in records}


def _log(**changes: Any) -> bytes:
    """The capture's keys with others' values; None leaves a key out."""
    said = {key: value for key, value in (_said() | changes).items() if value is not None}
    return "\n".join(f":::MLLOG {json.dumps({'key': key, 'value': value})}" for key, value in said.items()).encode()


def test_loadgens_times_are_nanoseconds() -> None:
    found = values(one(MLPERF))
    assert found["request_latency.mean"] == pytest.approx(0.005996349)
    assert found["request_latency.p99"] == pytest.approx(0.010333272)
    assert found["time_to_first_token.p50"] == pytest.approx(0.002478986)
    assert found["time_to_first_token.p99.9"] == pytest.approx(0.008106872)
    assert found["time_per_output_token.mean"] == pytest.approx(0.000209832)
    assert found["time_per_output_token.p97"] == pytest.approx(0.000262228)
    assert found["request_throughput.value"] == 38.4257
    assert found["output_token_throughput.value"] == 618.778
    assert found["requests_completed.value"] == 156


def test_loadgens_summary_for_people_says_the_same() -> None:
    text, found = content(MLPERF_SUMMARY).decode(), values(one(MLPERF))
    shown = {
        line.split(":")[0].strip(): line.split(":")[1].strip() for line in text.splitlines() if line.count(":") == 1
    }
    assert int(shown["99.00 percentile latency (ns)"]) == round(found["request_latency.p99"] * 1e9)
    assert int(shown["95.00 percentile first token latency (ns)"]) == round(found["time_to_first_token.p95"] * 1e9)
    assert int(shown["90.00 percentile time to output token (ns)"]) == round(found["time_per_output_token.p90"] * 1e9)
    assert float(shown["Completed tokens per second"]) == round(found["output_token_throughput.value"], 2)


def test_loadgens_verdict_is_honoured() -> None:
    assert one(MLPERF).invalid_reason == "result_validity is not VALID: early_stopping_met"
    assert one(MLPERF, _log(result_validity="VALID")).invalid_reason is None
    told = one(MLPERF, _log(result_invalid_reason="Reduce target QPS to improve latency."))
    assert told.invalid_reason == "result_validity is not VALID: Reduce target QPS to improve latency."
    assert one(MLPERF, _log(result_validity="VALID", num_errors=2)).invalid_reason == "the log counts 2 errors"
    accuracy = one(MLPERF, _log(result_validity="VALID", effective_test_mode="AccuracyOnly"))
    assert accuracy.invalid_reason == "the mode AccuracyOnly measures no performance"


def test_loadgens_times_of_day_are_those_in_utc() -> None:
    """test_datetime ends in Z and is local time; the times for power meters have no zone and are UTC."""
    result = one(MLPERF, _log(test_datetime="1999-01-01T00:00:00Z"))
    assert result.started_us == _microseconds(2026, 11, 21, 1, 47, 46, 909000)
    assert result.ended_us == _microseconds(2026, 11, 21, 1, 47, 50, 943000)
    assert result.duration_seconds == pytest.approx(4.034)
    assert one(MLPERF, _log(power_begin=None)).duration_seconds is None


def test_loadgen_says_what_it_is() -> None:
    result = one(MLPERF)
    assert (result.tool, result.tool_version, result.mode) == ("mlperf-loadgen", "6.0.17", Mode.EXTERNAL)
    assert (result.model, result.requests_completed, result.requests_failed) == (None, 156, None)
    assert result.claims["effective_scenario"] == "Server"
    assert result.raw["result_validity"] == "INVALID"
    assert "loadgen_file_sha1: left out" in result.raw["jobtrail_cut"]


def test_all_at_once_is_one_query_of_many_samples() -> None:
    offline = _log(
        result_query_count=1, generated_samples_per_query=24, effective_scenario="Offline", result_validity="VALID",
        result_samples_per_second=12.5, result_tokens_per_second=100.0,
        result_completed_samples_per_sec=None, result_completed_tokens_per_second=None,
    )  # fmt: skip
    result = one(MLPERF, offline)
    assert result.requests_completed == 24
    assert values(result)["request_throughput.value"] == 12.5
    assert values(result)["output_token_throughput.value"] == 100.0


def test_numbers_of_c_that_are_no_json_are_absent() -> None:
    text = (
        content(MLPERF)
        .decode()
        .replace('"result_mean_latency_ns", "value": 5996349', '"result_mean_latency_ns", "value": -nan')
    )
    text = text.replace('"result_token_throughput", "value": 2.66829e-06', '"result_token_throughput", "value": inf')
    assert text.count("nan") > content(MLPERF).decode().count("nan")
    found = values(one(MLPERF, text.encode()))
    assert "request_latency.mean" not in found
    assert found["request_latency.p99"] == pytest.approx(0.010333272)


def test_a_log_without_a_verdict_is_refused() -> None:
    with pytest.raises(UnknownResult, match=f"^{MLPERF}: result_validity: is missing"):
        one(MLPERF, _log(result_validity=None))


def test_no_query_is_invalid() -> None:
    result = one(MLPERF, _log(result_validity="VALID", result_query_count=0))
    assert result.invalid_reason == "no request was completed"
    assert values(result) == {"requests_completed.value": 0}


def test_the_summary_for_people_is_refused_with_its_detail() -> None:
    with pytest.raises(UnknownResult, match=r"bring in mlperf_log_detail\.txt beside it"):
        one(MLPERF_SUMMARY)
    with pytest.raises(UnknownResult, match=r"bring in run7-detail\.txt beside it"):
        one("run7-summary.txt", content(MLPERF_SUMMARY))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"result_mean_latency_ns": -5}, "result_mean_latency_ns: must be a number from 0"),
        ({"result_query_count": "many"}, "result_query_count: must be a number, and is a text"),
        ({"power_begin": "now"}, "power_begin: must be a time such as"),
        ({"power_begin": 5}, "power_begin: must be a time such as"),
        ({"power_end": "11-20-2026 01:47:46.909"}, "power_end: must not be before power_begin"),
    ],
)
def test_loadgens_errors_are_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnknownResult, match=f"^{MLPERF}: {problem}"):
        one(MLPERF, _log(**changes))


def test_a_broken_line_of_a_log_is_named() -> None:
    with pytest.raises(UnknownResult, match=r"line 2: is no JSON after :::MLLOG"):
        one(MLPERF, b':::MLLOG {"key": "a", "value": 1}\n:::MLLOG {"key": \n')
