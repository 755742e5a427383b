"""Slurm 24.11 of Debian 13: its slurmrestd's newer answers, and what the daemon makes of its jobs."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_process import wait_until
from tests.slurm.cluster import SlurmCluster
from tests.slurm.observed import FIRST_RUN_STAYS
from tests.slurm.pair import Pair, observed_pair

DATA_VERSION = "v0.0.42"
TOLD = ("state", "verdict", "exit_code", "exit_signal")


@pytest.fixture(scope="module")
def pair(slurm_root: Path) -> Iterator[Pair]:
    with observed_pair(root=slurm_root, extra_conf=["KillWait=2"]) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def over_time(pair: Pair) -> int:
    """A job that reaches its limit of a minute, the least there is, while the other tests go on."""
    return pair.cluster.submit("exec sleep 300", "--time=1")


def asked(cluster: SlurmCluster, path: str) -> dict[str, Any]:
    """What slurmrestd answers on its Unix socket, whatever the status."""
    url = f"http://localhost/{path}"
    answer = cluster.run_tool("curl", "-sS", "--unix-socket", str(cluster.rest_socket), url)
    return dict(json.loads(answer))


def told(job: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(job[name] for name in TOLD)


def test_it_is_the_newer_slurm_and_its_newest_data_version(pair: Pair) -> None:
    assert pair.cluster.run_tool("slurmctld", "-V").startswith("slurm-wlm 24.11.")
    answer = asked(pair.cluster, f"slurm/{DATA_VERSION}/ping")
    assert answer["meta"]["slurm"]["version"]["major"] == "24"
    assert answer["pings"][0]["pinged"] == "UP"


def test_its_programs_see_what_is_mounted_for_them_and_nobody_else_does(pair: Pair, slurm_root: Path) -> None:
    assert str(slurm_root) not in Path("/proc/self/mounts").read_text()
    assert pair.cluster.run_tool("cat", "/etc/debian_version").startswith("13.")
    assert pair.cluster.run_tool("ls", str(pair.cluster.directory)).split() == sorted(
        path.name for path in pair.cluster.directory.iterdir()
    )


def test_answers_about_a_job_have_the_newer_form(pair: Pair) -> None:
    """States in lists, numbers that say whether they are set, and exit codes that slurmdbd has right as well."""
    job = pair.cluster.submit("exit 3")
    pair.cluster.wait_finished(job)
    pair.cluster.sacct(job)
    code = {"set": True, "infinite": False, "number": 3}
    (controller,) = asked(pair.cluster, f"slurm/{DATA_VERSION}/job/{job}")["jobs"]
    assert controller["job_state"] == ["FAILED"]
    assert controller["exit_code"]["return_code"] == code
    assert controller["array_task_id"]["set"] is False
    (accounting,) = asked(pair.cluster, f"slurmdb/{DATA_VERSION}/job/{job}")["jobs"]
    assert accounting["state"]["current"] == ["FAILED"]
    assert accounting["exit_code"]["return_code"] == code


def test_an_unknown_job_is_not_found_by_the_controller_and_nothing_in_accounting(pair: Pair) -> None:
    assert asked(pair.cluster, f"slurm/{DATA_VERSION}/job/999999")["errors"][0]["error_number"] == 2017
    assert asked(pair.cluster, f"slurmdb/{DATA_VERSION}/job/999999")["jobs"] == []


def test_a_bearer_token_alone_opens_it_over_tcp(pair: Pair) -> None:
    headers = {"Authorization": f"Bearer {pair.cluster.token('jt-bob')}"}
    request = urllib.request.Request(f"{pair.cluster.rest_url}/slurm/{DATA_VERSION}/nodes", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        nodes = json.load(answer)["nodes"]
    assert sorted(node["name"] for node in nodes) == sorted(pair.cluster.node_names)
    assert all(isinstance(node["state"], list) for node in nodes)


@pytest.mark.parametrize(
    ("script", "expected"),
    [("exit 0", ("completed", "completed", 0, None)), ("exit 3", ("failed", "failed", 3, None))],
)
def test_how_a_job_ended_by_itself(pair: Pair, script: str, expected: tuple[Any, ...]) -> None:
    job = pair.finished(script)
    assert told(job) == expected
    assert job["outcome_source"] == "slurmctld"


def test_what_hooks_do_not_know_is_filled_in(pair: Pair) -> None:
    job = pair.finished("true", "--job-name=a name", "--time=7", "--mem=100", "--gres=gpu:1")
    assert (job["job_name"], job["qos"], job["time_limit_seconds"]) == ("a name", "normal", 420)
    assert (job["memory_requested_bytes"], job["gpus_allocated"]) == (100 << 20, 1)
    assert job["submit_time"] <= job["start_time"]


def test_a_cancelled_job_is_cancelled(pair: Pair) -> None:
    job = pair.cluster.submit("exec sleep 300")
    pair.cluster.wait_script(job)
    pair.cluster.cancel(job)
    pair.cluster.wait_finished(job)
    assert told(pair.confirmed(job)) == ("cancelled", "cancelled", None, 15)


def test_a_requeued_job_is_two_runs(pair: Pair) -> None:
    job = pair.cluster.submit(f"{FIRST_RUN_STAYS}\nsleep 1")
    pair.cluster.wait_script(job)
    pair.cluster.requeue(job)
    pair.cluster.wait_state(job, {"PENDING"})
    wait_until(lambda: "job_finished" in [row["event_kind"] for row in pair.trail(job)], "the first run's epilog")
    pair.cluster.start_now(job)
    pair.cluster.wait_finished(job)
    pair.confirmed(job, runs=2)
    assert [row["verdict"] for row in pair.runs(job)] == ["requeued", "completed"]


def test_two_nodes_are_one_run_with_two_parts(pair: Pair) -> None:
    job = pair.finished("srun sleep 2", "--nodes=2", "--ntasks=2", "--cpus-per-task=3")
    slurm_id = int(job["job_id"].removeprefix("slurm-"))
    wait_until(lambda: len(pair.parts(slurm_id)) == 2, "the parts of both nodes")
    parts = pair.parts(slurm_id)
    assert [part["node"] for part in parts] == sorted(pair.cluster.node_names)
    assert {part["run"] for part in parts} == {1}
    assert (job["cpus_allocated"], job["nodes_total"]) == (6, 2)


def test_a_name_that_is_no_text_costs_nobody_anything(pair: Pair) -> None:
    hostile = pair.cluster.submit("sleep 2", b"--job-name=caf\xe9".decode("utf-8", "surrogateescape"))
    other = pair.finished("exit 3")
    pair.cluster.wait_finished(hostile)
    assert (other["verdict"], pair.confirmed(hostile)["job_name"]) == ("failed", "caf\ufffd")


def test_a_job_over_its_time_limit_is_told_as_such(pair: Pair, over_time: int) -> None:
    assert pair.cluster.wait_finished(over_time, timeout=300) == "TIMEOUT"
    assert told(pair.confirmed(over_time)) == ("failed", "timeout", None, 15)
