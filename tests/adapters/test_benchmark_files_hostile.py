"""Whatever a file holds, it gives results fit for the database or one error that says what is wrong, and soon."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobtrail.adapters.benchmark_files import documents, read_results
from jobtrail.domain.benchmarks.metrics import METRICS
from jobtrail.domain.benchmarks.report import MAX_RAW_BYTES, ToolResult
from jobtrail.domain.errors import JobtrailError, UnknownResult
from tests.adapters.benchmark_captures import (
    AIPERF,
    DETAILED,
    GUIDELLM,
    LATENCY,
    MLPERF,
    READABLE,
    SERVE,
    THROUGHPUT,
    content,
    document,
    one,
)

_MB = 1024 * 1024
_SOON_SECONDS = 20.0  # for the largest; this machine may be busy


def _refusal(data: bytes, name: str = "result.json") -> str:
    with pytest.raises(UnknownResult) as caught:
        read_results(name, data)
    assert isinstance(caught.value, JobtrailError)
    return str(caught.value)


def _check(result: ToolResult) -> None:
    """What everybody behind the readers may rely on."""
    encoded = msgspec.json.encode(result)
    assert msgspec.json.decode(encoded, type=ToolResult) == result
    assert len(msgspec.json.encode(result.raw)) <= MAX_RAW_BYTES
    assert b"\\u0000" not in encoded
    assert len({(one.metric, one.stat) for one in result.measurements}) == len(result.measurements)
    for measurement in result.measurements:
        assert math.isfinite(measurement.value)
        assert measurement.value >= 0
        if METRICS[measurement.metric].unit == "s" and measurement.stat != "std":
            assert measurement.value > 0
    if not result.requests_completed and result.mode != "latency":
        assert {METRICS[one.metric].unit for one in result.measurements} <= {"count"}
        assert result.invalid_reason


@pytest.mark.parametrize("name", READABLE)
def test_captures_hold_what_is_promised(name: str) -> None:
    _check(one(name))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the file is empty"),
        (b" \n\t ", "the file is empty"),
        (json.dumps({"a": 1}).encode("utf-16"), "the file is UTF-16; benchmark tools write UTF-8"),
        (json.dumps({"a": 1}).encode("utf-16-le"), "is no JSON"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe\x80", "the file is no UTF-8 text: byte 8 cannot be decoded"),
        (b"\x1f\x8b\x08\x00", "the file is no UTF-8 text: byte 1 cannot be decoded"),
        (b"{", "line 1 column 2: is no JSON"),
        (b'{"a": 1,}', "is no JSON"),
        (b"<html>", "is neither JSON nor a log of :::MLLOG lines; known are"),
        (b"[1, 2]", "is a JSON list and no object; known are"),
        (b"{}", "is JSON of no known tool, its first keys are: none; known are"),
        (b'{"e\\u001b[31m": 1}', r"its first keys are: 'e\x1b[31m'; known are"),
        (b'{"aiperf_version": "0.1"}', "looks like a result of aiperf, and lacks schema_version; known are"),
        (b"[" * 100_000, "stand too deep in each other"),
        (b'{"a":' * 100_000, "stand too deep in each other"),
        (b'{"completed": 1, "completed": 2}', "'completed': the key stands twice in one object"),
        (b'{"completed": ' + b"9" * 10_000 + b"}", "a number of 10000 digits begins with 999999999999"),
        (b'{"completed": 0.' + b"3" * 10_000 + b"}", "a number of 10002 digits begins with 0.3333333333"),
    ],
    ids=range(18),
)
def test_what_is_none_is_refused_with_the_reason(data: bytes, problem: str) -> None:
    message = _refusal(data)
    assert message.startswith("result.json: ")
    assert problem in message
    assert len(message) < 800
    assert message.isprintable()


@pytest.mark.parametrize(
    ("name", "tool", "lacking"),
    [
        (SERVE, "vllm bench serve", "duration"),
        (SERVE, "vllm bench serve", "total_token_throughput"),
        (THROUGHPUT, "vllm bench throughput", "elapsed_time"),
        (LATENCY, "vllm bench latency", "percentiles"),
        (AIPERF, "aiperf", "aiperf_version"),
        (GUIDELLM, "guidellm", "benchmarks"),
    ],
)
def test_a_half_recognised_file_is_told_what_it_lacks(name: str, tool: str, lacking: str) -> None:
    capture = document(name)
    del capture[lacking]
    assert f"looks like a result of {tool}, and lacks {lacking}; known are" in _refusal(json.dumps(capture).encode())


def test_a_name_for_a_terminal_is_escaped() -> None:
    assert _refusal(b"{}", "a\x1b[2Jb.json").startswith("'a\\x1b[2Jb.json': ")


def test_a_number_too_large_for_a_float_is_refused_and_not_taken_for_absent() -> None:
    text = content(SERVE).decode().replace('"mean_ttft_ms": 13.83819916666198', '"mean_ttft_ms": 1e999')
    assert "mean_ttft_ms: must be a number from 0 to" in _refusal(text.encode())


def test_a_time_that_is_zero_in_seconds_is_absent() -> None:
    result = one(SERVE, document(SERVE) | {"mean_ttft_ms": 5e-324})
    _check(result)
    assert ("time_to_first_token", "mean") not in {(one.metric, one.stat) for one in result.measurements}


def test_texts_that_a_database_refuses_are_made_fit() -> None:
    result = one(SERVE, document(SERVE) | {"label": "a\x00b\ud800c", "k\x00": "\x00"})
    _check(result)
    assert result.claims["label"] == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    assert result.raw["label"] == result.claims["label"]


def test_a_file_cannot_say_what_was_cut() -> None:
    assert "jobtrail_cut" not in one(THROUGHPUT, document(THROUGHPUT) | {"jobtrail_cut": ["nothing"]}).raw


def test_metadata_does_not_make_it_a_file_of_another_tool() -> None:
    said = {"aiperf_version": "1", "schema_version": "1.4", "metadata": "x", "benchmarks": "y", "avg_latency": "1"}
    assert one(SERVE, said | {"latencies": "1", "percentiles": "2"} | document(SERVE)).tool == "vllm"


def test_a_byte_order_mark_does_no_harm() -> None:
    assert one(SERVE, b"\xef\xbb\xbf" + content(SERVE)).measurements == one(SERVE).measurements


def test_claims_and_raw_are_bounded() -> None:
    many = {f"note{n}": "x" * 3_000 for n in range(3_000)}
    result = one(SERVE, many | document(SERVE))
    _check(result)
    assert len(result.claims) == 64
    assert max(map(len, result.claims.values())) == 512
    assert result.raw["jobtrail_cut"][0] == "note0: a text of 3000"
    assert result.raw["jobtrail_cut"][-1].startswith("and ")


def test_the_largest_member_goes_first() -> None:
    """Of a document over the bound, small members stay and of the largest what fits."""
    notes = {f"n{n:03}": "é" * 900 for n in range(60)}
    result = one(SERVE, document(SERVE) | {"notes": notes, "jobtrail_cut": "mine"})
    _check(result)
    raw = result.raw
    assert {key: raw[key] for key in ("duration", "model_id", "request_rate")} == {
        "duration": 3.082110663000094, "model_id": "tiny-llama", "request_rate": 20.0,
    }  # fmt: skip
    assert 10 < len(raw["notes"]) < 60
    lost = set(notes) - raw["notes"].keys()
    assert {name for name in raw["jobtrail_cut"] if "notes." in name} <= {f"notes.{key}: 1811 bytes" for key in lost}


def test_deep_and_wide_objects_are_cut() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = {"d": deep}
    result = one(SERVE, document(SERVE) | {"deep": deep, "wide": {str(n): n for n in range(1_500)}, "huge": 10**30})
    _check(result)
    cuts = result.raw["jobtrail_cut"]
    assert any(name.endswith(": too deep") for name in cuts)
    assert "wide.1000: 500 keys from here on" in cuts
    assert result.raw["huge"] == 1e30


_ROW = content(SERVE).decode().rstrip()[:-1]  # without its last brace


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: b"0" * (50 * _MB), id="digits"),
        pytest.param(lambda: b'"' + b"x" * (50 * _MB) + b'"', id="one text"),
        pytest.param(lambda: b"{" + b"\n" * (50 * _MB), id="newlines"),
        pytest.param(lambda: b"{}\n" * (16 * _MB), id="lines of nothing"),
        pytest.param(lambda: b"[" + b"[]," * (16 * _MB) + b"1]", id="lists"),
        pytest.param(lambda: b"[" + b"1," * (25 * _MB) + b"1]", id="numbers"),
        pytest.param(lambda: b":::MLLOG {}\n" * (4 * _MB), id="log lines"),
        pytest.param(lambda: b':::MLLOG {"key": "a", "value": [' + b"[]," * (16 * _MB) + b"1]}", id="log of lists"),
        pytest.param(lambda: b"{" + b'"' + b"_" * (50 * _MB) + b'": 1}', id="one key"),
        pytest.param(lambda: b"x" * (65 * _MB), id="too large"),
    ],
)
def test_fifty_megabytes_of_nothing_are_refused_soon(data: Any) -> None:
    made = data()
    began = time.monotonic()
    assert len(_refusal(made)) < 800
    assert time.monotonic() - began < _SOON_SECONDS


def test_fifty_megabytes_of_single_requests_are_read_soon() -> None:
    gaps = "[" + "0.010833646999799385, " * 130 + "0.01]"
    single = "[" + ", ".join([gaps] * 18_000) + "]"
    data = f'{_ROW}, "itls": {single}, "{"_" * 1_000_000}": 5}}'.encode()
    assert len(data) > 50 * _MB
    began = time.monotonic()
    result = one(SERVE, data)
    assert time.monotonic() - began < _SOON_SECONDS
    _check(result)
    assert "itls: a list of 18000" in result.raw["jobtrail_cut"]


def test_no_more_is_looked_at_than_may_be_kept() -> None:
    many = {f"k{n}": {str(m): {"x": 1} for m in range(900)} for n in range(300)}
    began = time.monotonic()
    result = one(SERVE, document(SERVE) | {"many": many})
    assert time.monotonic() - began < _SOON_SECONDS
    _check(result)
    assert result.raw["duration"] == document(SERVE)["duration"]


def test_too_many_values_are_refused() -> None:
    too_many = b'{"a": [' + b"1," * (documents.MAX_VALUES + 1) + b"1]}"
    assert "the file holds more than 6000000 values" in _refusal(too_many)


def test_too_many_keys_are_refused() -> None:
    wide = {f"k{n}": n for n in range(documents.MAX_KEYS + 1)}
    assert "'k0': begins an object of 10001 keys; at most 10000 are read" in _refusal(json.dumps(wide).encode())


def test_too_many_results_are_refused() -> None:
    assert "holds 1001 results; at most 1000 are read" in _refusal(b"\n".join([b"{}"] * 1_001))


# ---- mutations of real files

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 10**18, 10**19, 2**63, -(2**64), 10**60, 1e308, 5e-324, float("nan"), float("inf"), -0.0]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\x00", "\ud800", "1_0", "٣", "1999-13-01T00:00:00", "0001-01-01T00:00:00+23:59", "inf", "nan"]),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [place] if place else []
    for key, child in members:
        found += _places(child, (*place, key))
    return found


def _without_requests(name: str) -> dict[str, Any]:
    capture = document(name)
    if name == GUIDELLM:
        benchmark = capture["benchmarks"][0]
        benchmark["requests"] = {"successful": []}
        read_metrics = ("request", "time_", "inter", "prompt", "output_token", "tokens_per")
        benchmark["metrics"] = {k: v for k, v in benchmark["metrics"].items() if k.startswith(read_metrics)}
    return capture


_CAPTURES = {name: _without_requests(name) for name in READABLE if name != MLPERF}
_PLACES = {name: _places(capture) for name, capture in _CAPTURES.items()}
_LOG = content(MLPERF).decode().splitlines()


def _try(name: str, data: bytes) -> None:
    results: tuple[ToolResult, ...] = ()
    message = ""
    try:
        results = read_results(name, data)
    except UnknownResult as error:
        message = str(error)
    assert results or message
    assert len(message) < 1_000
    assert message.isprintable()
    for result in results:
        _check(result)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_anywhere_gives_results_or_one_error(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(_CAPTURES)))
    capture = json.loads(json.dumps(_CAPTURES[name]))
    for place in data.draw(st.lists(st.sampled_from(_PLACES[name]), min_size=1, max_size=3)):
        inner = capture
        try:
            for step in place[:-1]:
                inner = inner[step]
            inner[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
        if data.draw(st.booleans()) and isinstance(inner, dict):
            inner[data.draw(st.text(max_size=8))] = inner.pop(place[-1])
        elif isinstance(inner, dict | list):
            inner[place[-1]] = data.draw(_VALUES)
    _try(name, json.dumps(capture, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_in_a_log_gives_a_result_or_one_error(data: st.DataObject) -> None:
    lines = list(_LOG)
    for index in data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=4)):
        record = json.loads(_LOG[index].removeprefix(":::MLLOG "))
        record[data.draw(st.sampled_from(["key", "value"]))] = data.draw(_VALUES)
        lines[index] = f":::MLLOG {json.dumps(record)}"
    _try(MLPERF, "\n".join(lines).encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(READABLE), st.data())
def test_any_change_of_bytes_gives_results_or_one_error(name: str, data: st.DataObject) -> None:
    raw = bytearray(content(name)[:40_000] if name == GUIDELLM else content(name))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        if not raw:
            break
    _try(name, bytes(raw))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.text(max_size=20))
def test_any_bytes_under_any_name(data: bytes, name: str) -> None:
    _try(name, data)
    _try(name, b":::MLLOG " + data)
    _try(name, b"{" + data)


def test_what_is_mutated_is_read_when_it_is_not() -> None:
    for name, capture in _CAPTURES.items():
        assert one(name, capture).measurements
    assert one(DETAILED).measurements
