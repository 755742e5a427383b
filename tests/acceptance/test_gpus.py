"""GPUs and energy of jobs, against the real daemon: a driver, a prolog and an epilog, and what is told of them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from tests.acceptance.gpu_node import GpuNode
from tests.daemon_process import wait_until
from tests.requirements import require_tool

A, B = GpuNode.gpu_id(1), GpuNode.gpu_id(0)  # Slurm's places 0 and 1


@pytest.fixture
def make_node() -> Iterator[Callable[..., GpuNode]]:
    """Nodes with a database."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-gpus-"))
    made: list[GpuNode] = []
    with embedded_postgres.running(directory / "postgres") as url:
        migrate.upgrade(url)

        def make(**settings: Any) -> GpuNode:
            home = directory / f"node{len(made)}"
            home.mkdir()
            node = GpuNode(home, url, **settings)
            made.append(node)
            return node

        try:
            yield make
        finally:
            for node in made:
                if node.daemon.process is not None and node.daemon.process.poll() is None:
                    node.daemon.kill()
            shutil.rmtree(directory, ignore_errors=True)


def test_two_jobs_on_two_gpus_never_swap(make_node: Callable[..., GpuNode]) -> None:
    """Each has the GPU of its place, one works, one is held and idle, a job without GPUs has none."""
    node = make_node()
    node.daemon.start()
    for job, place in ((7, "0"), (8, "1"), (9, None)):
        node.begin(job, place)
    node.driver.gpu(1, utilization=70, processes=node.process(5001, 7))
    node.wait_for("hpc_job_gpu_device_utilization_percent", 7, {A: 70})
    node.wait_for("hpc_job_gpu_device_utilization_percent", 8, {B: 0})
    node.wait_for("hpc_job_gpus_active", 7, {"": 1})
    node.wait_for("hpc_job_gpus_active", 8, {"": 0})
    assert node.of_job("hpc_job_gpu_usage_percent", 7) == {"": 70}
    wait_until(lambda: node.of_job("hpc_job_gpu_idle_seconds", 8).get(B, 0) > 0.5, "an idle GPU", every_seconds=0.1)
    node.spend(1, 5_000_013_345)
    node.wait_for("hpc_job_gpu_device_energy_joules_total", 7, {A: 12.345})
    node.wait_for("hpc_job_energy_joules_total", 7, {"gpu": 12.345})
    shown = {name for name in node.daemon.metrics() if "gpu" in name and node.of_job(name, 9)}
    assert shown == set()
    check_with_promtool(node.daemon.get("/metrics")[1])
    node.spend(1, 5_000_014_345)  # after the last look on the tick, maybe: the end is a look of its own
    for job in (7, 8, 9):
        node.end(job)
    totals = {job: node.final(job) for job in (7, 8, 9)}
    (worked,), (idle,) = node.gpus(7), node.gpus(8)
    assert (worked["gpu_id"], worked["resolved_by"], worked["energy_joules"]) == (A, "gres_conf_file", 13.345)
    assert worked["energy_method"] == "counter"
    assert worked["busy_seconds"] > 0
    assert (idle["gpu_id"], idle["energy_joules"], idle["busy_seconds"]) == (B, 0.0, 0.0)
    assert idle["unused_seconds"] > 0.5
    assert node.gpus(9) == []
    assert [totals[job]["energy_gpu_joules"] for job in (7, 8, 9)] == [13.345, 0.0, None]
    asked = "SELECT DISTINCT gpu_id, job_id FROM gpu_samples WHERE job_id IS NOT NULL"
    wanted = {(A, "slurm-7"), (B, "slurm-8")}
    wait_until(
        lambda: {(row["gpu_id"], row["job_id"]) for row in node.rows(asked)} == wanted,
        "samples of both",
        every_seconds=0.2,
    )


def check_with_promtool(page: bytes) -> None:
    """`promtool check metrics` finds nothing to say about the page."""
    promtool = require_tool("promtool", "whether Prometheus's own linter accepts /metrics stays unchecked")
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
