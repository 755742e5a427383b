"""vLLM's three result files give the numbers that stand in them, in SI units, and nothing that was not measured."""

from __future__ import annotations

import hashlib
import json
import statistics
from typing import Any

import pytest

from jobtrail.adapters.benchmark_files import read_results
from jobtrail.domain.benchmarks.metrics import METRICS, STATS
from jobtrail.domain.benchmarks.report import Mode
from jobtrail.domain.errors import UnknownResult
from tests.adapters.benchmark_captures import (
    DETAILED,
    FOLDER,
    LATENCY,
    SERVE,
    THROUGHPUT,
    content,
    document,
    one,
    values,
)

_TIMES = {
    "ttft": "time_to_first_token",
    "tpot": "time_per_output_token",
    "itl": "inter_token_latency",
    "e2el": "request_latency",
}
_SINCE_0_9_2 = ("request_goodput",)
_SINCE_0_12_0 = ("backend", "failed", "max_output_tokens_per_s", "max_concurrent_requests")
_SINCE_0_20_2 = ("rtfx",)
_SINCE_0_32_0 = ("latencies", "queue_times")


def _as_of(*missing: tuple[str, ...]) -> dict[str, Any]:
    """The capture without the keys that came later."""
    later = {key for group in missing for key in group}
    return {key: value for key, value in document(SERVE).items() if key not in later}


def _as_of_0_8_5() -> dict[str, Any]:
    old = _as_of(_SINCE_0_12_0, _SINCE_0_20_2, _SINCE_0_32_0)
    return {("request_goodput:" if key == "request_goodput" else key): value for key, value in old.items()}


def _all_failed() -> dict[str, Any]:
    """As 0.32.0 writes it, with exit code 0, when no request came through: zeros everywhere."""
    capture = document(SERVE)
    results = list(capture)[list(capture).index("max_concurrency") + 1 :]
    zeros: dict[str, Any] = {key: 0.0 for key in results if isinstance(capture[key], float | int)}
    return {**capture, **zeros, "completed": 0, "failed": 60, "duration": 0.4, "latencies": [], "queue_times": []}


def test_serve_gives_the_captures_own_numbers_in_seconds() -> None:
    capture, result = document(SERVE), one(SERVE)
    found = values(result)
    for short, metric in _TIMES.items():
        for stat in ("mean", "std", "p50", "p90", "p95", "p99", "p99.9"):
            assert found[f"{metric}.{stat}"] == pytest.approx(capture[f"{stat}_{short}_ms"] / 1000, rel=1e-12)
    assert found["time_to_first_token.p99.9"] == pytest.approx(0.035077, rel=1e-4)
    assert found["output_token_throughput.value"] == capture["output_throughput"]
    assert found["total_token_throughput.value"] == capture["total_token_throughput"]
    assert found["request_throughput.value"] == capture["request_throughput"]
    assert found["request_goodput.value"] == capture["request_goodput"]
    assert (found["input_tokens.value"], found["output_tokens.value"]) == (3846, 1920)
    assert (found["requests_completed.value"], found["requests_failed.value"]) == (60, 0)
    assert found["error_rate.value"] == 0
    assert found["duration.value"] == result.duration_seconds == capture["duration"]
    assert (result.requests_completed, result.requests_failed, result.invalid_reason) == (60, 0, None)
    assert (result.tool, result.mode) == ("vllm", Mode.SERVE)
    assert result.sha256 == hashlib.sha256(content(SERVE)).hexdigest()


def test_serves_numbers_agree_with_its_single_requests() -> None:
    """The meaning of the keys, worked out from the requests themselves."""
    capture, found = document(DETAILED), values(one(DETAILED))
    ttfts, gaps = capture["ttfts"], capture["itls"]
    assert found["time_to_first_token.mean"] == pytest.approx(statistics.mean(ttfts), rel=1e-9)
    assert found["time_to_first_token.p50"] == pytest.approx(statistics.median(ttfts), rel=1e-9)
    pooled = [gap for request in gaps for gap in request]
    assert found["inter_token_latency.mean"] == pytest.approx(statistics.mean(pooled), rel=1e-9)
    assert found["inter_token_latency.p50"] == pytest.approx(statistics.median(pooled), rel=1e-9)
    per_request = [
        (whole - first) / (tokens - 1)
        for whole, first, tokens in zip(capture["latencies"], ttfts, capture["output_lens"], strict=True)
    ]
    assert found["time_per_output_token.p50"] == pytest.approx(statistics.median(per_request), rel=1e-9)
    assert "request_latency.mean" not in found  # e2el was not asked for
    assert found["output_token_throughput.value"] == pytest.approx(48 / capture["duration"], rel=1e-9)


def test_all_measurements_are_of_the_vocabulary() -> None:
    for name in (SERVE, DETAILED, THROUGHPUT, LATENCY):
        for measurement in one(name).measurements:
            assert measurement.metric in METRICS
            assert measurement.stat in STATS or measurement.stat[0] == "p"


@pytest.mark.parametrize(
    "old",
    [
        pytest.param(_as_of_0_8_5(), id="0.8.5"),
        pytest.param(_as_of(_SINCE_0_12_0, _SINCE_0_20_2, _SINCE_0_32_0), id="0.9.2"),
        pytest.param(_as_of(_SINCE_0_20_2, _SINCE_0_32_0), id="0.12.0"),
        pytest.param(_as_of(_SINCE_0_32_0), id="0.20.2"),
    ],
)
def test_older_versions_give_the_same_numbers(old: dict[str, Any]) -> None:
    assert values(one(SERVE, old)) == values(one(SERVE))


def test_without_failed_what_was_not_completed_has_failed() -> None:
    old = _as_of_0_8_5() | {"completed": 45}
    result = one(SERVE, old)
    assert result.requests_failed == 15
    assert values(result)["error_rate.value"] == pytest.approx(0.25)


def test_num_prompts_written_by_metadata_is_not_counted_with() -> None:
    """0.8.5 to 0.10.2 write no `failed`; metadata may overwrite num_prompts, as a text."""
    result = one(SERVE, _as_of_0_8_5() | {"num_prompts": "60", "completed": 45})
    assert result.requests_failed is None
    assert "error_rate.value" not in values(result)
    assert result.claims["num_prompts"] == "60"


def test_when_all_requests_failed_there_are_counts_and_no_measurement() -> None:
    result = one(SERVE, _all_failed())
    assert result.invalid_reason == "all 60 requests failed"
    assert values(result) == {"requests_completed.value": 0, "requests_failed.value": 60}
    assert (result.requests_completed, result.requests_failed) == (0, 60)


def test_a_latency_of_zero_is_absent() -> None:
    """One output token leaves no time between tokens; vLLM writes 0.0 for each statistic of it."""
    capture = document(SERVE)
    zeroed = {key: 0.0 if "_tpot_" in key or "_itl_" in key else value for key, value in capture.items()}
    found = values(one(SERVE, zeroed))
    assert not [name for name in found if name.startswith(("time_per_output_token", "inter_token_latency"))]
    assert found["time_to_first_token.p50"] == pytest.approx(0.0123055, rel=1e-4)


def test_a_deviation_of_zero_from_a_mean_is_kept() -> None:
    assert values(one(SERVE, document(SERVE) | {"std_ttft_ms": 0.0}))["time_to_first_token.std"] == 0


def test_metadata_is_claims_only() -> None:
    """--metadata is merged flat and may overwrite what stands before it; a text is never a measurement."""
    said = document(SERVE) | {
        "model_id": "evil", "date": "1999", "jobtrail_job_id": "slurm-7", "p10_e2el_ms": "1", "started_us": "5",
    }  # fmt: skip
    result = one(SERVE, said)
    assert (result.model, result.tool_version, result.started_us, result.ended_us) == (None, None, None, None)
    assert "request_latency.p10" not in values(result)
    assert result.claims["model_id"] == "evil"
    assert result.claims["date"] == "1999"
    assert result.claims["jobtrail_job_id"] == "slurm-7"
    assert result.claims["p10_e2el_ms"] == "1"
    assert result.claims["recipe"] == "tiny-smoke"
    assert "request_rate" not in result.claims


def test_the_median_stands_in_for_a_percentile_that_was_not_asked_for() -> None:
    found = values(one(DETAILED))
    assert found["time_to_first_token.p50"] == pytest.approx(document(DETAILED)["median_ttft_ms"] / 1000)
    assert found["time_to_first_token.p99"] == pytest.approx(document(DETAILED)["p99_ttft_ms"] / 1000)
    both = document(SERVE) | {"median_ttft_ms": 999.0}
    assert values(one(SERVE, both))["time_to_first_token.p50"] == pytest.approx(both["p50_ttft_ms"] / 1000)


@pytest.mark.parametrize("rate", [20.0, "inf", 5])
def test_the_request_rate_may_be_inf(rate: float | str) -> None:
    result = one(SERVE, document(SERVE) | {"request_rate": rate})
    assert result.raw["request_rate"] == rate
    assert "request_rate" not in result.claims
    assert values(result) == values(one(SERVE))


def test_goodput_null_and_concurrency_null_are_absent() -> None:
    found = values(one(SERVE, document(SERVE) | {"request_goodput": None, "max_concurrency": None}))
    assert "request_goodput.value" not in found
    assert values(one(SERVE, document(SERVE) | {"request_goodput": 0.0}))["request_goodput.value"] == 0


def test_nan_and_infinity_are_absent() -> None:
    text = content(SERVE).decode().replace('"mean_ttft_ms": 13.83819916666198', '"mean_ttft_ms": NaN')
    text = text.replace('"std_ttft_ms": 5.022490140938402', '"std_ttft_ms": -Infinity')
    found = values(one(SERVE, text.encode()))
    assert "time_to_first_token.mean" not in found
    assert "time_to_first_token.std" not in found
    assert found["time_to_first_token.p50"] == pytest.approx(0.0123055, rel=1e-4)


def test_no_list_of_single_requests_is_kept_and_each_is_named() -> None:
    capture, raw = document(DETAILED), one(DETAILED).raw
    lists = {key for key, value in capture.items() if isinstance(value, list)}
    assert lists
    assert not lists & raw.keys()
    assert {name.split(":")[0] for name in raw["jobtrail_cut"]} == lists
    assert {key: value for key, value in raw.items() if key != "jobtrail_cut"} == {
        key: value for key, value in capture.items() if key not in lists
    }


def test_embeddings_have_no_output_tokens() -> None:
    """`vllm bench serve` on embeddings writes no output throughput, and zero output tokens."""
    capture = document(SERVE) | {"total_output_tokens": 0}
    del capture["output_throughput"]
    found = values(one(SERVE, capture))
    assert not [name for name in found if name.startswith("output_")]
    assert found["request_throughput.value"] == capture["request_throughput"]


def test_acceptance_of_speculation_is_a_ratio() -> None:
    found = values(one(SERVE, document(SERVE) | {"spec_decode_acceptance_rate": 62.5}))
    assert found["spec_decode_acceptance_rate.value"] == pytest.approx(0.625)


def test_appended_results_are_one_a_line() -> None:
    """--append-result puts a newline between the objects and none at the end."""
    lines = [json.dumps(document(SERVE) | {"completed": n, "failed": 60 - n}).encode() for n in (60, 59, 0)]
    results = read_results("serve.jsonl", b"\n".join(lines))
    assert [result.requests_completed for result in results] == [60, 59, 0]
    assert [result.sha256 for result in results] == [hashlib.sha256(line).hexdigest() for line in lines]
    assert results[2].invalid_reason == "all 60 requests failed"


def test_a_broken_line_is_named() -> None:
    whole = json.dumps(document(SERVE))
    with pytest.raises(UnknownResult, match=r"^runs\.json: line 2 column \d+: is no JSON"):
        read_results("runs.json", f"{whole}\n{whole[:400]}".encode())
    with pytest.raises(UnknownResult, match=r"^runs\.json: line 2: duration: must be a number, and is a text"):
        read_results("runs.json", f"{whole}\n{json.dumps(document(SERVE) | {'duration': 'long'})}".encode())


def test_the_copy_for_pytorch_is_refused_with_its_twin() -> None:
    records = [{"benchmark": {"name": "vLLM benchmark"}, "model": {"name": "m"}, "metric": {"name": "ttft"}}]
    with pytest.raises(UnknownResult, match=r"bring in result-1\.json beside it"):
        read_results("result-1.pytorch.json", json.dumps(records).encode())
    with pytest.raises(UnknownResult, match=r"without \.pytorch beside it"):
        read_results("renamed.json", json.dumps(records).encode())


def test_throughputs_tokens_include_prompts() -> None:
    capture, result = document(THROUGHPUT), one(THROUGHPUT)
    assert values(result) == {
        "requests_completed.value": 40,
        "duration.value": capture["elapsed_time"],
        "request_throughput.value": capture["requests_per_second"],
        "total_token_throughput.value": capture["tokens_per_second"],
    }
    assert capture["tokens_per_second"] == pytest.approx(capture["total_num_tokens"] / capture["elapsed_time"])
    assert (result.mode, result.model) == (Mode.THROUGHPUT, capture["model_id"])
    assert result.requests_failed is None


def test_latency_is_of_batches_in_seconds() -> None:
    capture, result = document(LATENCY), one(LATENCY)
    found = values(result)
    assert found["batch_latency.mean"] == capture["avg_latency"] == pytest.approx(statistics.mean(capture["latencies"]))
    assert found["batch_latency.p50"] == pytest.approx(statistics.median(capture["latencies"]))
    assert found == {"batch_latency.mean": capture["avg_latency"]} | {
        f"batch_latency.p{key}": value for key, value in capture["percentiles"].items()
    }
    assert (result.mode, result.requests_completed, result.duration_seconds) == (Mode.LATENCY, None, None)


@pytest.mark.parametrize("name", [THROUGHPUT, LATENCY])
def test_before_0_32_there_is_no_model(name: str) -> None:
    old = {key: value for key, value in document(name).items() if key != "model_id"}
    result = one(name, old)
    assert result.model is None
    assert values(result) == values(one(name))


def test_what_measured_nothing_is_invalid() -> None:
    nothing = one(LATENCY, document(LATENCY) | {"avg_latency": None})
    assert nothing.invalid_reason == "no batch was measured: avg_latency is absent or 0"
    assert nothing.measurements == ()
    empty = one(THROUGHPUT, dict.fromkeys(document(THROUGHPUT), 0))
    assert empty.invalid_reason == "no request was completed"
    assert values(empty) == {"requests_completed.value": 0}


@pytest.mark.parametrize(
    ("percentiles", "problem"),
    [
        ([1, 2], "percentiles: must be an object of at most 100"),
        ({"best": 0.1}, r"percentiles\.'best': must be named by a number between 0 and 100"),
        ({"0": 0.1}, r"percentiles\.'0': must be named by"),
        ({"50": "x"}, r"percentiles\.50: must be a number, and is a text"),
    ],
)
def test_latencys_percentiles_are_checked(percentiles: Any, problem: str) -> None:
    with pytest.raises(UnknownResult, match=f"^{LATENCY}: {problem}"):
        one(LATENCY, document(LATENCY) | {"percentiles": percentiles})


@pytest.mark.parametrize("path", sorted((FOLDER / "noise").iterdir()), ids=lambda path: path.stem)
def test_equal_runs_on_a_noisy_machine(path: Any) -> None:
    capture = json.loads(path.read_text())
    (result,) = read_results(path.name, path.read_bytes())
    found = values(result)
    assert result.invalid_reason is None
    assert found["output_token_throughput.value"] == capture["output_throughput"]
    assert found["time_per_output_token.p50"] == pytest.approx(capture["median_tpot_ms"] / 1000)
    assert found["time_to_first_token.p50"] == pytest.approx(capture["median_ttft_ms"] / 1000)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("mean_ttft_ms", -1.0, "mean_ttft_ms: must be a number from 0 to"),
        ("mean_ttft_ms", 1e300, "mean_ttft_ms: must be a number from 0 to"),
        ("mean_ttft_ms", [1.0], "mean_ttft_ms: must be a number, and is a list"),
        ("output_throughput", True, "output_throughput: must be a number, and is true or false"),
        ("completed", 59.5, "completed: must be a whole number"),
        ("completed", {"n": 1}, "completed: must be a number, and is an object"),
        ("failed", -1, "failed: must be a number from 0 to"),
        ("total_output_tokens", "many", "total_output_tokens: must be a number, and is a text"),
        ("spec_decode_acceptance_rate", 250.0, "spec_decode_acceptance_rate: must be a number from 0 to 100"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_name(key: str, value: Any, problem: str) -> None:
    with pytest.raises(UnknownResult, match=f"^{SERVE}: {problem}"):
        one(SERVE, document(SERVE) | {key: value})
