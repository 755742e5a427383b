"""A job's user has it looked at now: what lies between two such looks is known, whatever the interval."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.gpu_node import ENERGY, GpuNode, asked, look
from tests.acceptance.test_gpus import make_node  # noqa: F401 - a fixture
from tests.daemon_process import Daemon, wait_until

WATTS = 100
SECONDS = 3
SAMPLES = "SELECT * FROM energy_samples WHERE job_id = $1 ORDER BY sampled_at"
# Asks for a look at the job it is in, twice, and says what was answered.
ASKER = """
import http.client, json, os, socket, sys
for _ in range(2):
    status = 503  # of a look that takes too long, as on a busy machine
    while status == 503:
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(sys.argv[1])
        connection.request("POST", f"/v1/jobs/{os.environ['JOBTRAIL_JOB_ID']}/look")
        response = connection.getresponse()
        status, answer = response.status, json.load(response)
    print(json.dumps(answer), flush=True)
"""


def test_the_energy_between_two_looks_is_that_of_the_time_between(make_node: Callable[..., GpuNode]) -> None:  # noqa: F811
    """The driver's counter grows by 100 W; nobody else looks for an hour."""
    node = make_node(gpu={"interval_seconds": 3600.0}, sampling={"interval_seconds": 3600.0})
    node.driver.gpu(1, **{ENERGY: f"5000000000@{WATTS * 1000}"})
    node.daemon.start()
    users = node.daemon.socket.with_name("poke.sock")
    node.begin(7, "0")
    node.wait_for("hpc_job_gpu_device_utilization_percent", 7, {GpuNode.gpu_id(1): 0})
    samples_before = len(node.rows("SELECT 1 FROM job_samples WHERE job_id = 'slurm-7'"))
    first_asked, first_done = asked(users, "slurm-7")
    began = time.monotonic()
    wait_until(lambda: time.monotonic() >= began + SECONDS, f"{SECONDS} s to pass")
    last_asked, last_done = asked(users, "7")

    def stored() -> list[dict[str, Any]] | None:
        found = node.rows(SAMPLES, "slurm-7")
        return found if found and found[-1]["sampled_at"] >= last_asked else None

    rows = wait_until(stored, "both rows")
    first, last = ([row for row in rows if row["sampled_at"] <= done][-1] for done in (first_done, last_done))
    assert first["sampled_at"] >= first_asked
    # However long a look took, its counters were read between the question and the answer.
    least, most = (last_asked - first_done).total_seconds(), (last_done - first_asked).total_seconds()
    assert least >= SECONDS * 0.99
    assert least <= (last["sampled_at"] - first["sampled_at"]).total_seconds() <= most
    assert WATTS * least <= last["gpu_joules"] - first["gpu_joules"] <= WATTS * most
    assert least <= last["covered_seconds"] - first["covered_seconds"] <= most
    assert (last["node"], last["gpu_method"], last["gpu_ids"]) == ("n1", "counter", [GpuNode.gpu_id(1)])
    held = "SELECT 1 FROM job_samples WHERE job_id = 'slurm-7'"
    wait_until(lambda: len(node.rows(held)) >= samples_before + 2, "rows of the cgroup too")
    node.end(7)
    total = node.final(7)["energy_gpu_joules"]
    # With a row of its end, of a look that is left out where it takes longer than an end may wait.
    wait_until(lambda: node.rows(SAMPLES, "slurm-7")[-1]["gpu_joules"] == total, "the last row to be the job's total")
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
        statuses = [look(local.socket, job_id)[0] for _ in range(8)]

        def refused() -> bool:
            """Of many who ask at once: one after another may be slow enough to be answered all."""
            with ThreadPoolExecutor(20) as many:
                answers = list(many.map(lambda _: look(local.socket, job_id), range(20)))
            return any(status == 429 and "looked at just now" in told["message"] for status, told in answers)

        assert wait_until(refused, "a look to be refused")
        wait_until(lambda: look(local.socket, job_id)[0] == 200, "a look that is done in time, after that")
        child.communicate()
    assert set(statuses) <= {200, 503}  # 503: one that takes too long, as on a busy machine
