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
from tests.acceptance.gpu_node import GpuNode, asked
from tests.daemon_process import wait_until
from tests.requirements import require_tool

A, B = GpuNode.gpu_id(1), GpuNode.gpu_id(0)  # Slurm's places 0 and 1


@pytest.fixture
def make_node() -> Iterator[Callable[..., GpuNode]]:
    """Nodes with a database."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-gpus-"))
    made: list[GpuNode] = []

    def make(**settings: Any) -> GpuNode:
        home = directory / f"node{len(made)}"
        home.mkdir()
        made.append(GpuNode(home, url, **settings))
        return made[-1]

    try:
        with embedded_postgres.running(directory / "postgres") as url:
            migrate.upgrade(url)
            yield make
            for node in made:
                if node.daemon.process is not None and node.daemon.process.poll() is None:
                    node.daemon.stop()
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
    node.spend(1, 5_000_014_345)
    # The end is a look of its own, but for one that takes longer than an end may wait.
    node.wait_for("hpc_job_gpu_device_energy_joules_total", 7, {A: 13.345})
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


def test_a_killed_daemon_counts_on_and_never_twice(make_node: Callable[..., GpuNode]) -> None:
    """What was used while nobody looked is a gap, not a guess."""
    node = make_node(sampling={"checkpoint_seconds": 0.5})
    node.daemon.start()
    node.begin(7, "0")
    node.wait_for("hpc_job_gpu_device_utilization_percent", 7, {A: 0})
    node.spend(1, 5_000_003_000)
    node.wait_for("hpc_job_gpu_device_energy_joules_total", 7, {A: 2.0})
    checkpoints = "SELECT 1 FROM job_gpus WHERE job_id = 'slurm-7' AND energy_joules = 2.0"
    wait_until(lambda: node.rows(checkpoints), "a checkpoint with it", every_seconds=0.2)
    node.daemon.kill()
    node.spend(1, 5_000_500_000)
    node.daemon.start()
    node.wait_for("hpc_job_gpu_device_energy_joules_total", 7, {A: 2.0})
    node.spend(1, 5_000_501_000)
    node.wait_for("hpc_job_gpu_device_energy_joules_total", 7, {A: 3.0})
    node.end(7)
    assert node.final(7)["energy_gpu_joules"] == 3.0
    (had,) = node.gpus(7)
    assert (had["gpu_id"], had["energy_joules"]) == (A, 3.0)


def test_the_cpus_energy_and_what_it_emits(make_node: Callable[..., GpuNode]) -> None:
    """A job that used 3 of the node's 4 busy seconds has three quarters of what the package used, by its share."""
    node = make_node(energy={"emission_factor": 500.0, "pue": 1.5}, gpu={"interval_seconds": 1000})
    node.daemon.start()
    wait_until(lambda: "hpc_node_gpu_jobs" in node.daemon.metrics(), "the first look", every_seconds=0.1)
    node.begin(7, "0")
    node.wait_for("hpc_job_gpus_unresolved", 7, {"": 0})  # the look because it began
    node.job(7, cpu_us=3_000_000)
    node.burn(400)
    node.use_energy(41_000_000)
    wait_until(lambda: _cpu_seconds(node) == 3.0, "the job's CPU time to be read", every_seconds=0.1)
    asked(node.daemon.socket.with_name("poke.sock"), "slurm-7")  # the one at its end may take longer than an end waits
    node.end(7)
    total = node.final(7)
    assert total["energy_cpu_joules"] == total["energy_joules"] == 30.0
    assert (total["energy_dram_joules"], total["energy_covered_seconds"] > 0) == (None, True)
    assert total["emissions_grams"] == pytest.approx(30.0 / 3.6e6 * 1.5 * 500, abs=1e-6)


def _cpu_seconds(node: GpuNode) -> float:
    found = node.daemon.metrics().get("hpc_job_cpu_seconds_total", [])
    return sum(value for labels, value in found if labels["job_id"] == "slurm-7")


def test_a_node_without_gpus_says_nothing_of_any(make_node: Callable[..., GpuNode]) -> None:
    """No series, no failure; and a driver that is loaded later is found."""
    node = make_node()
    control = node.driver.root / "dev/nvidiactl"
    control.unlink()
    node.daemon.start()
    node.begin(7, "0")
    node.wait_for("hpc_job_gpus_unresolved", 7, {"": 1})
    names = set(node.daemon.metrics())
    assert not {name for name in names if name.startswith(("hpc_node_gpu_", "jobtrail_gpu_look"))}
    control.touch()
    node.wait_for("hpc_job_gpus_unresolved", 7, {"": 0})
    node.end(7)
    assert node.final(7)["job_id"] == "slurm-7"
    assert [row["gpu_id"] for row in node.gpus(7)] == [A]


def test_nonsense_in_the_hooks_variable_is_shown_as_such(make_node: Callable[..., GpuNode]) -> None:
    """Another job's GPU is never shown in its place, and a job of 64 GPUs that are not there has 64 rows."""
    told = ["99", "-1", "0-1", "MIG-GPU-1/2/3", "x" * 500, "0,0", ",".join(map(str, range(100, 164)))]
    node = make_node()
    node.daemon.start()
    jobs = dict(enumerate(told, 20))
    for job, nonsense in jobs.items():
        node.begin(job, nonsense)
    for job in jobs:
        unresolved = {"": 64 if job == 26 else 1}
        node.wait_for("hpc_job_gpus_unresolved", job, unresolved)
        node.end(job)
    for job, nonsense in jobs.items():
        node.final(job)
        found = [row["gpu_id"] for row in node.gpus(job)]
        assert [gpu for gpu in found if not gpu.startswith("unresolved:")] == ([A] if nonsense == "0,0" else [])
        assert len(found) == (64 if job == 26 else 2 if nonsense == "0,0" else 1)


def check_with_promtool(page: bytes) -> None:
    """`promtool check metrics` finds nothing to say about the page."""
    promtool = require_tool("promtool", "whether Prometheus's own linter accepts /metrics stays unchecked")
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
