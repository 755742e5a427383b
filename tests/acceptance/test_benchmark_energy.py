"""A benchmark in a job on a GPU: its link, its energy per token, its gauges, and the verdict on a slower one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jobtrail.domain.benchmarks.report import BenchmarkReport
from tests.acceptance.gpu_node import ENERGY, GpuNode, asked
from tests.acceptance.test_gpus import make_node  # noqa: F401 - a fixture
from tests.benchmark_reports import claim, report, result, uid
from tests.daemon_process import wait_until

WATTS = 100
SECOND = 1_000_000
PUE, FACTOR = 1.2, 100.0
SUMMARY = "SELECT * FROM benchmark_run_summary WHERE run_uid = $1::uuid"
RUNS = "/v1/benchmarks/runs"


def now_us() -> int:
    return time.time_ns() // 1000


def ran(number: int, throughput: float, started_us: int, ended_us: int, **more: Any) -> BenchmarkReport:
    """A run of one repeat in that time, which put out 1000 tokens."""
    one = report(number, throughput, jobs=(claim("slurm-7", cluster="lab"),), **more)
    repeat = msgspec.structs.replace(
        one.repeats[0], started_us=started_us, ended_us=ended_us, result=result(throughput)
    )
    return msgspec.structs.replace(one, started_us=started_us, ended_us=ended_us, repeats=(repeat,))


def push(node: GpuNode, one: BenchmarkReport) -> None:
    status, answer = node.daemon.request("POST", RUNS, msgspec.json.encode(one))
    assert status == 201, answer


def summary(node: GpuNode, number: int, wanted: Callable[[Any], bool]) -> Any:
    """The run's row, once it is as wanted."""

    def there() -> Any:
        rows = node.rows(SUMMARY, uid(number))
        return rows[0] if rows and wanted(rows[0]) else None

    return wait_until(there, f"run {number}; it is {node.rows(SUMMARY, uid(number))}", timeout_seconds=60.0)


def gauges(node: GpuNode, name: str) -> list[tuple[dict[str, str], float]]:
    return list(node.daemon.metrics().get(f"hpc_benchmark_{name}", []))


def started(make: Callable[..., GpuNode]) -> GpuNode:
    node = make(
        gpu={"interval_seconds": 1.0},
        energy={"rapl": False, "emission_factor": FACTOR, "pue": PUE},
        benchmarks={"settle_seconds": 0.2},
        cluster="lab",
    )
    node.driver.gpu(1, **{ENERGY: f"5000000000@{WATTS * 1000}"})
    node.daemon.start()
    node.begin(7, "0")
    node.wait_for("hpc_job_gpu_device_utilization_percent", 7, {GpuNode.gpu_id(1): 0})
    return node


def test_tokens_per_joule_of_a_benchmark_in_a_job(make_node: Callable[..., GpuNode]) -> None:  # noqa: F811
    """100 W for a window of two seconds, 1000 tokens: about five tokens a joule."""
    node = started(make_node)
    users = node.daemon.socket.with_name("poke.sock")
    looks = [asked(users, "slurm-7")]  # as the wrapper asks at both ends of its window
    began = now_us()
    ended = began + 2 * SECOND
    wait_until(lambda: now_us() >= ended, "two seconds of benchmark")
    looks.append(asked(users, "slurm-7"))
    push(node, ran(1, 500.0, began, ended))
    row = summary(node, 1, lambda one: one["total_joules"] is not None)
    # A look's counters were read somewhen between the question and its answer.
    exact = max(0.05, sum((done - asked_at).total_seconds() for asked_at, done in looks) / 2)
    assert (row["job_id"], row["link_state"]) == ("slurm-7", "linked")
    assert row["gpu_joules"] == row["total_joules"] == pytest.approx(WATTS * 2, rel=exact)
    assert row["energy_coverage_ratio"] == pytest.approx(1.0, abs=exact)
    assert row["output_tokens_per_joule"] == pytest.approx(1000 / row["total_joules"])
    grams = row["total_joules"] / 3.6e6 * PUE * FACTOR
    assert row["emissions_grams_per_million_output_tokens"] == pytest.approx(grams / 1000 * 1e6)
    assert row["energy_invalid_reason"].startswith("low quality: the window of 2.")
    assert row["open_reason"] == "the job still runs: its whole energy is not known yet"

    page = node.daemon.cli("jobs", "show", "7").stdout
    (line,) = [line for line in page.splitlines() if line.startswith(uid(1)[:8])]
    assert line.split()[1:] == ["chat", "llama", "both", "ok"]

    ((labels, shown),) = wait_until(lambda: gauges(node, "output_tokens_per_joule"), "the gauge")
    assert shown == pytest.approx(row["output_tokens_per_joule"])
    assert (labels["cluster"], labels["recipe"], labels["model"]) == ("lab", "chat", "llama")
    assert len(labels["hardware"]) == 8
    assert {(one["domain"], one["window"]) for one, _ in gauges(node, "energy_joules")} == {
        ("gpu", "bench"), ("total", "bench"),
    }  # fmt: skip

    node.end(7)
    settled = summary(node, 1, lambda one: one["open_reason"] is None)
    assert settled["job_gpu_joules"] == pytest.approx(node.final(7)["energy_gpu_joules"], rel=0.05)
    assert settled["job_gpu_joules"] >= settled["gpu_joules"]


def test_a_slower_run_is_suspected_and_the_next_one_confirms_it(make_node: Callable[..., GpuNode]) -> None:  # noqa: F811
    """Five equal runs raise nothing; the sixth is half as fast, and so is the seventh."""
    node = started(make_node)
    for number, throughput in enumerate((500.0, 502.0, 498.0, 501.0, 499.0, 250.0), start=1):
        at = now_us()
        push(node, ran(number, throughput, at - 1000, at))
    assert summary(node, 5, lambda one: one["verdict"] is not None)["verdict"] == "insufficient"
    assert summary(node, 6, lambda one: one["verdict"] is not None)["verdict"] == "suspect"

    def regression() -> float | None:
        told = {one["metric"]: value for one, value in gauges(node, "regression")}
        return told.get("output_token_throughput")

    assert wait_until(lambda: regression() is not None, "a verdict on the page")
    assert regression() == 0
    at = now_us()
    push(node, ran(7, 251.0, at - 1000, at))
    assert summary(node, 7, lambda one: one["verdict"] is not None)["verdict"] == "regression"
    assert summary(node, 6, lambda one: one["verdict"] == "regression")
    assert wait_until(lambda: regression() == 1, "the regression on the page")
    (ratio,) = [v for one, v in gauges(node, "baseline_ratio") if one["metric"] == "output_token_throughput"]
    assert ratio == pytest.approx(0.5, rel=0.02)
    verdicts = json.loads(node.daemon.get(f"{RUNS}/{uid(7)}")[1])["verdicts"]
    assert {one["verdict"] for one in verdicts if not one["advisory"]} <= {"regression", "ok"}
