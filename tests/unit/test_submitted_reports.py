"""Reports of benchmarks as anybody may send them: what is taken, and what is refused by its field's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jobtrail.domain.benchmarks.metrics import METRICS, default_stat
from jobtrail.domain.benchmarks.report import MAX_RAW_BYTES, BenchmarkReport
from jobtrail.domain.benchmarks.submitted import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_REPORT_BYTES,
    MAX_TEXT,
    MAX_VALUES,
    read_report,
)
from jobtrail.domain.errors import InvalidEvent
from tests.benchmark_reports import report

NOW_US = report(repeats=2).ended_us
Tree = dict[str, Any]


def tree() -> Tree:
    """A report with everything in it, as JSON has it."""
    one = report(repeats=2, parameters={"dtype": "bfloat16"}, argv=("vllm", "bench"))
    sent: Tree = msgspec.json.decode(msgspec.json.encode(one))
    sent["files"] = [{"name": "result-1.json", "sha256": "c" * 64, "size_bytes": 7}]
    sent["repeats"][0]["result"] |= {"raw": {"date": "x", "deep": [1, {"a": None}]}, "started_us": NOW_US - 1}
    return sent


def read(sent: Tree) -> BenchmarkReport:
    return read_report(msgspec.json.encode(sent), now_us=NOW_US)


def test_a_report_is_read_as_it_was_sent() -> None:
    sent = tree()
    assert msgspec.json.decode(msgspec.json.encode(read(sent))) == sent


def test_what_the_daemon_says_is_not_the_senders_to_say() -> None:
    one = read({**tree(), "uid": 0, "user_name": ["no", "text"], "from_job": True})
    assert (one.uid, one.user_name, one.from_job) == (None, None, False)


def within(place: str, value: Any) -> Callable[[Tree], None]:
    """Puts `value` at a dotted place of a report."""

    def change(sent: Tree) -> None:
        *path, last = place.split(".")
        inner: Any = sent
        for name in path:
            inner = inner[int(name)] if isinstance(inner, list) else inner[name]
        inner[int(last) if isinstance(inner, list) else last] = value

    return change


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


RESULT = "repeats.0.result"
VALUE = f"{RESULT}.measurements.0"


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        (within("schema", 2), "schema", "must be 1"),
        (within("run_uid", "7"), "run_uid", "must be a UUID"),
        (within("run_uid", "6F1F2C3A-0B5E-4C5D-9D43-7D3F5A1F4E21"), "run_uid", "small letters"),
        (within("mode", "speed"), "mode", "invalid enum value"),
        (within("surprise", 1), "surprise", "is not known; there are run_uid, mode"),
        (within("hardware.gpu", 1), "hardware.gpu", "is not known; there are gpu_model"),
        (within("recipe.body.x", deep(MAX_DEPTH)), f"recipe.body.x{'[0]' * 30}", f"deeper than {MAX_DEPTH}"),
        (within("started_us", NOW_US), "repeats[0]", "must lie within the run"),
        (within(f"{RESULT}.extra", 1), "repeats[0].result.extra", "is not known"),
        (within("jobs.0.uid", 1), "jobs[0].uid", "is not known"),
        (within("started_us", 1), "started_us", "between the years 2000 and 2100"),
        (within("started_us", NOW_US + 1), "ended_us", "must not lie before started_us"),
        (within("ended_us", NOW_US + 90_000_000_000), "ended_us", "must not lie in the future"),
        (within("ended_us", 1.5), "ended_us", "expected int"),
        (within("repeats.1.ended_us", 1), "repeats[1].ended_us", "between the years"),
        (within(f"{RESULT}.ended_us", 1), "repeats[0].result.ended_us", "between the years"),
        (within("tool", ""), "tool", "1 to 255 visible characters"),
        (within("model", "a\nb"), "model", "1 to 255 visible characters"),
        (within("model", "x" * 256), "model", "1 to 255 visible characters"),
        (within("recipe.name", " a"), "recipe.name", "without spaces at its ends"),
        (within("reason", "x" * (MAX_TEXT + 1)), "reason", f"{MAX_TEXT} characters at most"),
        (within("parameters.x", "x" * (MAX_TEXT + 1)), "parameters.x", f"{MAX_TEXT} characters at most"),
        (within("parameters", {"x" * (MAX_TEXT + 1): ""}), "parameters", f"{MAX_TEXT} characters at most"),
        (within("parameters", {str(n): "" for n in range(MAX_ITEMS + 1)}), "parameters", f"{MAX_ITEMS} entries"),
        (within("argv", ["x"] * (MAX_ITEMS + 1)), "argv", f"{MAX_ITEMS} entries at most"),
        (within("argv.0", "a\0b"), "argv[0]", "NUL"),
        (within(f"{RESULT}.raw.a\0b", 1), "a\\0b", "NUL"),
        (within(f"{RESULT}.raw.x", 2**53), "repeats[0].result.raw.x", "within"),
        (within(f"{RESULT}.raw.x", "y" * MAX_RAW_BYTES), "repeats[0].result.raw", f"{MAX_RAW_BYTES} bytes"),
        (within("recipe.body.x", "y" * MAX_RAW_BYTES), "recipe.body", f"{MAX_RAW_BYTES} bytes"),
        (within(f"{RESULT}.raw.x", [0] * MAX_VALUES), "body", f"{MAX_VALUES} values"),
        (within("recipe.sha256", "A" * 64), "recipe.sha256", "64 hexadecimal digits"),
        (within("files.0.sha256", "c"), "files[0].sha256", "64 hexadecimal digits"),
        (within("files.0.size_bytes", -1), "files[0].size_bytes", "from 0"),
        (within(f"{RESULT}.sha256", "c"), "repeats[0].result.sha256", "64 hexadecimal digits"),
        (within("jobs.0.job_id", "17"), "jobs[0].job_id", "must be slurm-N or local-N, not '17'"),
        (within("jobs.0.cluster", "a\tb"), "jobs[0].cluster", "visible characters"),
        (within("repeats.0.exit_code", 256), "repeats[0].exit_code", "from 0 to 255"),
        (within("hardware.gpu_count", -1), "hardware.gpu_count", "from 0 to 1024"),
        (within(f"{RESULT}.requests_failed", -1), "repeats[0].result.requests_failed", "from 0"),
        (within(f"{VALUE}.metric", "speed"), "repeats[0].result.measurements[0].metric", "'speed' is no metric"),
        (within(f"{VALUE}.metric", "energy_gpu"), "repeats[0].result.measurements[0].metric", "cannot be reported"),
        (within(f"{VALUE}.stat", "p100"), "repeats[0].result.measurements[0].stat", "'p100' is no statistic"),
        (within(f"{VALUE}.value", -1.0), "repeats[0].result.measurements[0].value", "must not be negative"),
        (within(f"{VALUE}.value", "1"), "repeats[0].result.measurements[0].value", "expected float"),
        (within(VALUE, {"metric": "error_rate", "value": 1.1}), "repeats[0].result.measurements[0].value", "1 at most"),
        (
            within(VALUE, {"metric": "time_to_first_token", "value": 0, "stat": "mean"}),
            "repeats[0].result.measurements[0].value", "must be above 0",
        ),
        (
            within(VALUE, {"metric": "time_to_first_token", "value": 1, "stat": "p50"}),
            "repeats[0].result.measurements[3]", "time_to_first_token p50 is there twice",
        ),
        (lambda sent: sent.pop("status"), "status", "is needed"),
        (lambda sent: sent["repeats"][1].pop("started_us"), "repeats[1].started_us", "is needed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(change: Callable[[Tree], object], field: str, allowed: str) -> None:
    sent = tree()
    change(sent)
    with pytest.raises(InvalidEvent) as refused:
        read(sent)
    assert refused.value.field == field
    assert allowed in refused.value.reason


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"run_uid": NaN}', "must be JSON"),
        (b'{"x": 1e999}', "must be JSON"),
        (b'{"x": "\xff"}', "must be JSON"),
        (b"[" * 200_000, f"deeper than {MAX_DEPTH}"),
        (b" " * (MAX_REPORT_BYTES + 1), f"must be {MAX_REPORT_BYTES} bytes at most"),
    ],
)
def test_what_is_no_report_at_all(body: bytes, allowed: str) -> None:
    with pytest.raises(InvalidEvent, match=allowed) as refused:
        read_report(body, now_us=NOW_US)
    assert refused.value.field == "body"


def test_a_spread_of_zero_and_a_percentile_of_ones_own_are_fine() -> None:
    sent = tree()
    within(VALUE, {"metric": "time_to_first_token", "value": 0, "stat": "std"})(sent)
    sent["repeats"][0]["result"]["measurements"].append({"metric": "request_latency", "value": 3, "stat": "p99.9"})
    assert len(read(sent).repeats[0].result.measurements) == 12  # type: ignore[union-attr]


def test_a_run_without_recipe_and_results_is_a_report() -> None:
    sent = tree()
    for name in ("recipe", "files", "jobs"):
        sent.pop(name)
    sent["repeats"][0].pop("result")
    one = read(sent)
    assert (one.recipe, one.repeats[0].result) == (None, None)


def test_what_a_metric_is_ranked_by() -> None:
    assert default_stat("output_token_throughput") == default_stat("request_throughput") == "value"
    assert default_stat("time_to_first_token") == default_stat("request_latency") == "p50"
    assert default_stat("error_rate") == default_stat("duration") == default_stat("no such") == "value"
    assert all(default_stat(name) in metric.gates for name, metric in METRICS.items() if metric.gates)
