"""The shipped recipes with the real vLLM, as jobs of a user on a real Slurm cluster: from the command to the record.

One run of vLLM takes most of a minute, so the tests share four: two of the serving recipe, one of each other.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import pytest

from jobtrail.adapters.benchmark_files import read_results
from jobtrail.domain.benchmarks.report import Mode
from tests.daemon_process import wait_until
from tests.slurm import remains
from tests.vllm.benched import GRAMS_PER_KWH, RUN_SECONDS, WATTS, Benched, Run

pytestmark = [pytest.mark.slurm, pytest.mark.vllm]

SERVE = "vllm-serve-small"
SHORT = {"num_prompts": 12, "repeats": 2, "workload.input_len": 32, "workload.output_len": 16}


@pytest.fixture(scope="module")
def served(benched: Benched) -> list[Run]:
    """Two runs of one recipe, the older first."""
    return [benched.run_recipe(SERVE, **SHORT) for _ in range(2)]


@pytest.fixture(scope="module")
def timed(benched: Benched) -> Run:
    """A run without a server: batches, one after the other."""
    return benched.run_recipe("vllm-latency-small", iterations=3, repeats=1, **{"workload.warmups": 1})


@pytest.fixture(scope="module")
def filled(benched: Benched) -> Run:
    """A run without a server: all requests at once."""
    return benched.run_recipe("vllm-throughput-small", num_prompts=12, repeats=1)


def read(run: Run, mode: Mode) -> list[tuple[dict[str, Any], dict[tuple[str, str], float]]]:
    """Each of the run's files: as JSON, and the measurements that are read from it."""
    pairs = []
    for path in run.results:
        (result,) = read_results(path.name, path.read_bytes())
        assert (result.tool, result.mode, result.invalid_reason) == ("vllm", mode, None)
        pairs.append((json.loads(path.read_bytes()), {(m.metric, m.stat): m.value for m in result.measurements}))
    assert pairs
    return pairs


def test_what_the_serving_benchmark_wrote_is_read(served: list[Run]) -> None:
    """Milliseconds become seconds; nothing failed; all percentiles that the recipe asks for are there."""
    for file, values in read(served[0], Mode.SERVE):
        assert values["output_token_throughput", "value"] == file["output_throughput"] > 0
        assert values["total_token_throughput", "value"] == file["total_token_throughput"]
        assert values["request_throughput", "value"] == file["request_throughput"]
        assert values["output_tokens", "value"] == file["total_output_tokens"] == 12 * 16
        assert values["requests_completed", "value"] == file["completed"] == 12
        assert values["requests_failed", "value"] == values["error_rate", "value"] == 0
        names = {
            "time_to_first_token": "ttft",
            "time_per_output_token": "tpot",
            "inter_token_latency": "itl",
            "request_latency": "e2el",
        }
        for metric, name in names.items():
            for stat in ("mean", "std", "p50", "p90", "p95", "p99"):
                assert values[metric, stat] == pytest.approx(file[f"{stat}_{name}_ms"] / 1000)
        assert file["jobtrail_run_uid"] == served[0].uid


def test_what_the_latency_benchmark_wrote_is_read(timed: Run) -> None:
    """Its numbers are seconds already."""
    for file, values in read(timed, Mode.LATENCY):
        assert values["batch_latency", "mean"] == file["avg_latency"] > 0
        assert values["batch_latency", "p50"] == file["percentiles"]["50"]
        assert values["batch_latency", "p99"] == file["percentiles"]["99"]
        assert len(file["latencies"]) == 3


def test_what_the_throughput_benchmark_wrote_is_read(filled: Run) -> None:
    """Its tokens are those of prompts and answers together."""
    for file, values in read(filled, Mode.THROUGHPUT):
        assert values["total_token_throughput", "value"] == file["tokens_per_second"] > 0
        assert values["request_throughput", "value"] == file["requests_per_second"]
        assert values["requests_completed", "value"] == file["num_requests"] == 12
        assert ("output_token_throughput", "value") not in values


def test_a_benchmark_stands_in_the_record_of_its_job(benched: Benched, served: list[Run]) -> None:
    """One row has the job, its user, vLLM's version as the server says it, and the median of the files' throughput."""
    for run in served:
        row = benched.settled(run)
        assert (row["status"], row["job_id"], row["link_state"]) == ("ok", f"slurm-{run.slurm_id}", "linked")
        assert (row["user_name"], row["account"], row["job_verdict"]) == ("jt-alice", "physics", "completed")
        assert (row["recipe"], row["mode"], row["tool"], row["tool_version"]) == (SERVE, "serve", "vllm", "0.32.0")
        assert (row["model"], row["repeats"], row["error_ratio"]) == (str(benched.model), 2, 0)
        files = [json.loads(path.read_bytes()) for path in run.results]
        median = statistics.median(file["output_throughput"] for file in files)
        assert row["output_tokens_per_second"] == pytest.approx(median)
        assert row["output_tokens_per_second"] > 0
        assert row["output_tokens"] == 2 * 12 * 16
        job = benched.job(run.slurm_id)
        assert job is not None
        assert job["start_time"] < row["started_at"] < row["ended_at"] < job["end_time"]
    assert benched.settled(served[0])["fingerprint"] == benched.settled(served[1])["fingerprint"]


def test_the_servers_own_count_of_tokens_agrees(benched: Benched, served: list[Run]) -> None:
    """vLLM's server counts what it generates; between the looks at its counter there is nothing but the load."""
    counted = benched.rows("SELECT server_output_tokens FROM benchmark_run WHERE run_uid = %s", served[0].uid)
    assert [row["server_output_tokens"] for row in counted] == [2 * 12 * 16]


def test_the_runs_without_a_server_are_on_record_too(benched: Benched, timed: Run, filled: Run) -> None:
    """Each with its own figure and the version that the command `vllm` tells; what it does not measure is absent."""
    row = benched.settled(timed)
    assert (row["status"], row["mode"], row["link_state"], row["user_name"]) == ("ok", "latency", "linked", "jt-alice")
    assert row["batch_latency_p50_seconds"] > 0
    assert row["output_tokens_per_second"] is None
    row = benched.settled(filled)
    assert (row["status"], row["mode"], row["link_state"], row["user_name"]) == (
        "ok",
        "throughput",
        "linked",
        "jt-alice",
    )
    assert row["total_tokens_per_second"] > 0
    assert row["ttft_p50_seconds"] is None
    versions = {benched.settled(run)["tool_version"].partition("+")[0] for run in (timed, filled)}
    assert versions == {"0.32.0"}


def test_energy_of_the_loads_meets_their_tokens(benched: Benched, served: list[Run]) -> None:
    """The job's share of what the machine's meter counted during the loads, not in the pause between them."""
    row = benched.settled(served[0])
    repeats = served[0].manifest()["repeats"]
    seconds = sum(repeat["ended_us"] - repeat["started_us"] for repeat in repeats) / 1e6
    assert seconds < row["duration_seconds"]
    assert row["gpu_joules"] is None
    # At both ends of each load the meter's file is a little old.
    late = 2 * len(repeats) * benched.meter.oldest_seconds
    assert 0 < row["cpu_joules"] <= WATTS * (seconds * 1.2 + late)
    assert row["cpu_joules"] < row["job_cpu_joules"]
    assert row["energy_coverage_ratio"] >= 0.9
    assert row["output_tokens_per_joule"] == pytest.approx(row["output_tokens"] / row["total_joules"])
    assert row["emissions_grams"] == pytest.approx(row["total_joules"] / 3.6e6 * GRAMS_PER_KWH)
    assert row["energy_invalid_reason"].startswith("low quality: a load of ")


def test_the_event_is_in_the_audit_trail_of_the_job(benched: Benched, served: list[Run]) -> None:
    """It stands between the job's start and end and names the run, and who reported it as the kernel says."""
    run = served[0]
    trail = benched.trail(run.slurm_id)
    kinds = [row["event_kind"] for row in trail]
    assert kinds.count("benchmark_recorded") == 1
    assert kinds.index("job_started") < kinds.index("benchmark_recorded") < kinds.index("job_finished")
    event = trail[kinds.index("benchmark_recorded")]
    assert event["event"]["benchmark"]["run_uid"] == run.uid
    assert event["event"]["benchmark"]["user_name"] == "jt-alice"
    assert event["event"]["benchmark"]["from_job"] is True


def test_the_last_valid_run_is_on_the_metrics_page(benched: Benched, served: list[Run]) -> None:
    """Gauges of recipe, model and hardware have the later run's values, and no label is a job or a run."""
    row = benched.settled(served[1])
    labels = {name: row[name] for name in ("recipe", "model", "hardware")} | {"cluster": row["cluster_name"]}

    def shown() -> dict[str, float] | None:
        page = benched.daemon.metrics()
        found = {
            (name, own.get("quantile", "")): value
            for name, samples in page.items()
            if name.startswith("hpc_benchmark_")
            for own, value in samples
            if labels.items() <= own.items()
        }
        last = found.get(("hpc_benchmark_last_run_timestamp_seconds", ""))
        return found if last == pytest.approx(row["ended_at"].timestamp(), abs=0.01) else None

    found: Any = wait_until(shown, "the later run's gauges", timeout_seconds=180)
    assert found["hpc_benchmark_output_tokens_per_second", ""] == pytest.approx(row["output_tokens_per_second"])
    assert found["hpc_benchmark_requests_per_second", ""] == pytest.approx(row["requests_per_second"])
    assert found["hpc_benchmark_time_to_first_token_seconds", "0.5"] == pytest.approx(row["ttft_p50_seconds"])
    assert found["hpc_benchmark_time_per_output_token_seconds", "0.99"] == pytest.approx(row["tpot_p99_seconds"])
    assert found["hpc_benchmark_error_ratio", ""] == 0
    assert ("hpc_benchmark_goodput_requests_per_second", "") not in found


def test_too_few_runs_give_no_verdict_but_insufficient(benched: Benched, served: list[Run]) -> None:
    """A baseline needs five runs; with fewer nothing is called ok."""
    uid = served[1].uid
    query = "SELECT DISTINCT verdict FROM benchmark_verdict WHERE run_uid = %s"
    verdicts = wait_until(lambda: benched.rows(query, uid), "the verdicts", timeout_seconds=180)
    assert [row["verdict"] for row in verdicts] == ["insufficient"]


def test_the_leaderboard_ranks_recipes_by_their_best_run(benched: Benched, served: list[Run], timed: Run) -> None:
    """Throughput: the larger, latency: the smaller is better; a recipe's runs on one hardware have one place."""
    best = max((benched.settled(run) for run in served), key=lambda row: row["output_tokens_per_second"])
    board = benched.asked("leaderboard", "--recipe", SERVE)
    assert board["metric"] == "output_token_throughput"
    assert [(row["rank"], row["run_uid"]) for row in board["runs"]] == [(1, str(best["run_uid"]))]
    assert board["runs"][0]["value"] == pytest.approx(best["output_tokens_per_second"])
    board = benched.asked("leaderboard", "--metric", "batch_latency")
    assert [(row["rank"], row["run_uid"]) for row in board["runs"]] == [(1, timed.uid)]


def test_two_runs_are_compared(benched: Benched, served: list[Run]) -> None:
    """Each metric that both have, with its change and whether that is better; the noise of two runs is not known."""
    one, other = (benched.settled(run) for run in served)
    told = benched.asked("compare", served[0].uid, served[1].uid)
    metrics = {(row["metric"], row["stat"]): row for row in told["metrics"]}
    throughput = metrics["output_token_throughput", "value"]
    change = other["output_tokens_per_second"] / one["output_tokens_per_second"] - 1
    assert throughput["relative_change"] == pytest.approx(change)
    assert throughput["judgement"] == ("better" if change > 0 else "worse")
    assert throughput["significant"] is None
    waiting = metrics["time_to_first_token", "p50"]
    assert waiting["judgement"] == ("better" if other["ttft_p50_seconds"] < one["ttft_p50_seconds"] else "worse")
    page = benched.bench("compare", served[0].uid[:8], served[1].uid[:8])
    assert page.returncode == 0
    assert "output_token_throughput" in page.stdout


def test_a_cancelled_benchmark_is_on_record_as_failed(benched: Benched) -> None:
    """scancel during the load: the run says so, it has no figures, and nothing of vLLM is left."""
    run = benched.submit_recipe(SERVE, num_prompts=100_000, repeats=1, **{"workload.warmups": 0})
    stage = run.directory / "stage.json"

    def loading() -> bool:
        return stage.exists() and json.loads(stage.read_bytes())["stage"] == "loading"

    wait_until(loading, "the load to begin", timeout_seconds=RUN_SECONDS)
    assert any("vllm" in line for line in remains.processes_of(benched.cluster.directory).values())
    benched.cluster.cancel(run.slurm_id)
    assert benched.cluster.wait_finished(run.slurm_id) == "CANCELLED"
    row = wait_until(lambda: benched.summary(run), "the cancelled run's row", timeout_seconds=180)
    assert (row["status"], row["tool"], row["tool_version"]) == ("failed", "vllm", "0.32.0")
    assert "cancelled" in row["invalid_reason"]
    assert row["output_tokens_per_second"] is None
    assert not [line for line in remains.processes_of(benched.cluster.directory).values() if "vllm" in line]
    assert benched.settled(run)["link_state"] == "linked"


def test_the_tables_follow_from_the_trail(benched: Benched, served: list[Run], timed: Run, filled: Run) -> None:
    """After all of the above, recomputing jobs and benchmarks from the trail gives what is stored."""
    report = benched.rebuild_check()
    assert report["benchmarks"] >= 4
    assert report["differing"] == 0
    assert report["unverifiable"] == {}
