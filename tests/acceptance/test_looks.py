"""A job's user has it looked at now: what lies between two such looks is known, whatever the interval."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.gpu_node import ENERGY, GpuNode
from tests.acceptance.test_gpus import make_node  # noqa: F401 - a fixture
from tests.daemon_process import Daemon, UnixConnection, wait_until

WATTS = 100
SECONDS = 3
SAMPLES = "SELECT * FROM energy_samples WHERE job_id = $1 ORDER BY sampled_at"
# Asks for a look at the job it is in, twice, and says what was answered.
ASKER = """
import http.client, json, os, socket, sys
for _ in range(2):
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(sys.argv[1])
    connection.request("POST", f"/v1/jobs/{os.environ['JOBTRAIL_JOB_ID']}/look")
    print(json.dumps(json.load(connection.getresponse())), flush=True)
"""


def look(socket: Path, job: str) -> tuple[int, dict[str, Any]]:
    """The answer to one request."""
    connection = UnixConnection(socket)
    try:
        connection.request("POST", f"/v1/jobs/{job}/look")
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_the_energy_between_two_looks_is_that_of_the_time_between(make_node: Callable[..., GpuNode]) -> None:  # noqa: F811
    """The driver's counter grows by 100 W; nobody else looks for an hour."""
    node = make_node(gpu={"interval_seconds": 3600.0}, sampling={"interval_seconds": 3600.0})
    node.driver.gpu(1, **{ENERGY: f"5000000000@{WATTS * 1000}"})
    node.daemon.start()
    users = node.daemon.socket.with_name("poke.sock")
    node.begin(7, "0")
    node.wait_for("hpc_job_gpu_device_utilization_percent", 7, {GpuNode.gpu_id(1): 0})
    samples_before = len(node.rows("SELECT 1 FROM job_samples WHERE job_id = 'slurm-7'"))
    assert look(users, "slurm-7")[0] == 200
    began = time.monotonic()
    wait_until(lambda: time.monotonic() >= began + SECONDS, f"{SECONDS} s to pass")
    status, answer = look(users, "7")
    assert (status, answer["job_id"], answer["looked"]) == (200, "slurm-7", True)
    rows = wait_until(lambda: node.rows(SAMPLES, "slurm-7")[1:] and node.rows(SAMPLES, "slurm-7"), "both rows")
    first, last = rows[-2:]
    passed = (last["sampled_at"] - first["sampled_at"]).total_seconds()
    used = last["gpu_joules"] - first["gpu_joules"]
    assert passed >= SECONDS * 0.99
    assert used * SECONDS / passed == pytest.approx(WATTS * SECONDS, rel=0.02)
    assert last["covered_seconds"] - first["covered_seconds"] == pytest.approx(passed, rel=0.02)
    assert (last["node"], last["gpu_method"], last["gpu_ids"]) == ("n1", "counter", [GpuNode.gpu_id(1)])
    assert last["sampled_at"].isoformat() <= answer["time"].replace("Z", "+00:00")
    held = "SELECT 1 FROM job_samples WHERE job_id = 'slurm-7'"
    wait_until(lambda: len(node.rows(held)) >= samples_before + 2, "rows of the cgroup too")
    node.end(7)
    total = node.final(7)["energy_gpu_joules"]
    ended = wait_until(lambda: (found := node.rows(SAMPLES, "slurm-7"))[len(rows) :] and found, "a row of its end")
    assert ended[-1]["gpu_joules"] == total
    assert look(users, "slurm-7")[0] == 403


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, scheduler="local") as running:
        yield running


def test_a_command_that_is_observed_can_ask_for_itself(local: Daemon) -> None:
    """And nobody asks without end."""
    done = local.cli("exec", "--", sys.executable, "-c", ASKER, str(local.socket))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["job_id"].partition("-")[0], one["looked"]) for one in answers] == [("local", True)] * 2
    assert answers[0]["time"] < answers[1]["time"]


def test_nobody_asks_without_end(local: Daemon) -> None:
    command = [sys.executable, "-m", "jobtrail", "exec", "--", "cat"]
    with subprocess.Popen(command, env=local.environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        found = wait_until(lambda: local.metrics().get("hpc_job_info"), "the job to be known")
        job_id = found[0][0]["job_id"]
        statuses = [look(local.socket, job_id)[0] for _ in range(30)]
        child.communicate()
    assert statuses[:8] == [200] * 8
    assert 429 in statuses
