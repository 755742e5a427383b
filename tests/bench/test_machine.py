"""What a benchmark runs on: the GPUs that it may use, and the job it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jobtrail.cli.bench.machine import hardware, job_claim, visible
from jobtrail.domain.benchmarks.report import Hardware, JobClaim, LinkSource, Role
from tests.daemon_process import REPOSITORY
from tests.fake_nvml import FakeDriver, library
from tests.requirements import require_tool

ASK = """
import os, sys, msgspec
from jobtrail.cli.bench.machine import hardware
sys.stdout.buffer.write(msgspec.json.encode(hardware(os.environ)))
"""


def seen(driver: FakeDriver, **variables: str) -> Hardware:
    """What a process with these variables sees of a node with this driver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "SLURM_"))}
    paths = {"PYTHONPATH": str(REPOSITORY / "daemon"), "LD_LIBRARY_PATH": str(driver.directory)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**kept, **paths, **variables}, capture_output=True, check=True, timeout=60
    )
    return msgspec.json.decode(done.stdout, type=Hardware)


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    """Four GPUs, the last a weaker one."""
    made = FakeDriver(tmp_path, library(require_tool("gcc", "the fake driver is built with it")), gpus=4)
    for index in range(4):
        made.gpu(index, **{"power_limit": 700_000 - 1000 * index, "max_clock.1": 1980})
    made.gpu(3, name="NVIDIA L4", **{"max_clock.1": 2040})
    return made


def uuid(index: int) -> str:
    """As the driver has it."""
    return f"GPU-{index:08x}-0000-0000-0000-000000000000"


def test_only_the_gpus_that_the_job_may_use(driver: FakeDriver) -> None:
    """Others' are no part of its hardware."""
    found = seen(driver, CUDA_VISIBLE_DEVICES="1,2", SLURM_JOB_ID="5")
    assert (found.gpu_model, found.gpu_count, found.gpus) == ("NVIDIA H100 80GB HBM3", 2, (uuid(1), uuid(2)))
    assert (found.driver_version, found.mig_profile) == ("575.57.08", None)
    assert (found.power_limit_watts, found.max_clock_mhz) == (698.0, 1980)


def test_gpus_named_by_their_uuids_and_of_several_models(driver: FakeDriver) -> None:
    """The models stand beside each other; what is after a word that is no GPU is not used."""
    found = seen(driver, CUDA_VISIBLE_DEVICES=f"{uuid(3)},{uuid(0)},9,1")
    assert (found.gpu_model, found.gpus) == ("NVIDIA H100 80GB HBM3 + NVIDIA L4", (uuid(3), uuid(0)))


def test_a_part_of_a_gpu(driver: FakeDriver) -> None:
    """Its profile is what makes its speed; the limits are the board's."""
    driver.gpu(0, mig=1)
    driver.instance(0, 0, uuid="MIG-a", name="NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    found = seen(driver, CUDA_VISIBLE_DEVICES="MIG-a")
    assert (found.gpu_model, found.mig_profile, found.gpu_count) == ("NVIDIA H100 80GB HBM3", "1g.10gb", 1)
    assert (found.gpus, found.power_limit_watts) == (("MIG-a",), 700.0)


def test_a_job_without_gpus_has_none_and_a_person_all(driver: FakeDriver) -> None:
    """A node without cgroups' device control shows a job all of them."""
    assert seen(driver, SLURM_JOB_ID="5").gpu_count == 0
    assert seen(driver, CUDA_VISIBLE_DEVICES="NoDevFiles").gpu_count == 0
    assert seen(driver).gpu_count == 4


def test_what_the_driver_does_not_tell_is_absent(driver: FakeDriver) -> None:
    """Never zero."""
    driver.gpu(0, power_limit=None, **{"max_clock.1": None})
    found = seen(driver, CUDA_VISIBLE_DEVICES="0")
    assert (found.power_limit_watts, found.max_clock_mhz, found.gpu_count) == (None, None, 1)


def test_a_node_without_a_driver(tmp_path: Path) -> None:
    """The CPU is told all the same."""
    found = hardware({"CUDA_VISIBLE_DEVICES": ""}, cpuinfo=tmp_path / "none")
    assert found == Hardware(cpu_count=len(os.sched_getaffinity(0)))
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 9654\n\nmodel name\t: x\n")
    assert hardware({"CUDA_VISIBLE_DEVICES": ""}, cpuinfo=tmp_path / "cpuinfo").cpu_model == "AMD EPYC 9654"


@pytest.mark.parametrize(
    ("shown", "expected"), [("0,1", ["0", "1"]), ("", ()), ("-1", ()), ("none", ()), (" GPU-a , 2", ["GPU-a", "2"])]
)
def test_what_cuda_shows(shown: str, expected: object) -> None:
    """As the variable says it."""
    assert visible({"CUDA_VISIBLE_DEVICES": shown}) == expected


def test_the_job_by_its_environment() -> None:
    """Its task of an array and its restarts too; outside of a job there is none."""
    claim = job_claim(
        {
            "SLURM_JOB_ID": "0042", "SLURM_CLUSTER_NAME": "lab", "SLURM_RESTART_COUNT": "2", "SLURM_STEP_ID": "0",
            "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_NODELIST": "n[1-2]",
        },
        Role.BOTH,
    )  # fmt: skip
    assert claim == JobClaim(
        job_id="slurm-42", role=Role.BOTH, source=LinkSource.MANIFEST, cluster="lab", restart_count=2, step_id="0",
        array_job_id="40", array_task_id="2", node_list="n[1-2]",
    )  # fmt: skip
    assert job_claim({}, Role.BOTH) is None
    assert job_claim({"SLURM_JOB_ID": "many"}, Role.BOTH) is None
