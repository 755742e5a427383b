"""scripts/check_gpu, as users run it on their nodes, on the fake driver and a program that stands for nvidia-smi."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from tests.daemon_process import REPOSITORY
from tests.fake_nvml import FakeDriver, board, field, library
from tests.requirements import require_tool

ENERGY = f"gpu.0.{field(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION)}"


def row(index: int) -> dict[str, object]:
    """What nvidia-smi would print of the fake driver's GPU, by name of its query."""
    said = board(index)
    return {
        "index": index,
        "uuid": said["uuid"],
        "name": said["name"],
        "pci.bus_id": said["bus_id"],
        "driver_version": "575.57.08",
        "compute_cap": "9.0",
        "memory.total": 81_559,
        "memory.used": index + 1,
        "utilization.gpu": said["utilization"],
        "temperature.gpu": said["temperature"],
        "temperature.memory": 40 + index,
        "power.draw": "100.00",
        "enforced.power.limit": 700 + index,
        "clocks.sm": said["clock.1"],
        "clocks.mem": said["clock.2"],
        "ecc.errors.corrected.aggregate.total": 3 + 1000 * index,
        "ecc.errors.uncorrected.aggregate.total": 1 + 1000 * index,
    }


class Node:
    """A node with one GPU that uses 100 W and counts nothing, and what both programs say of it."""

    def __init__(self, directory: Path) -> None:
        self.driver = FakeDriver(directory, library(require_tool("gcc", "the fake driver is built with it")))
        self.driver.put({ENERGY: None})
        self.program = directory / "nvidia-smi"
        self.says(row(0))

    def says(self, *rows: dict[str, object]) -> None:
        """Have nvidia-smi print these."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(one.values() for one in rows)
        self.program.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(text.getvalue())}\n", encoding="utf-8")
        self.program.chmod(0o755)

    def check(self, *arguments: str, seconds: int = 1) -> subprocess.CompletedProcess[str]:
        """Run the script, measuring for so long."""
        return subprocess.run(
            [
                *(sys.executable, str(REPOSITORY / "scripts/check_gpu"), "--seconds", str(seconds)),
                *("--nvidia-smi", str(self.program), "--root", str(self.driver.root)),
                *("--library-directory", str(self.driver.directory), *arguments),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )

    def failures(self) -> dict[str, str]:
        """What the script found wrong."""
        done = self.check("--json")
        assert done.returncode == 1, done.stdout + done.stderr
        answer = json.loads(done.stdout)
        assert answer["verdict"] == "FAIL"
        return {line["what"]: line["detail"] for line in answer["checks"] if line["state"] == "FAIL"}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_all_is_well(node: Node) -> None:
    node.driver.put({ENERGY: "5000000@100000"})
    # The longer it measures, the longer the reader may pause at the first or last look, as on a busy machine.
    for seconds in (8, 20, 60):
        done = node.check(seconds=seconds)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "verdict: ok"
    assert "FAIL" not in done.stdout
    for what in (
        "GPU 0 against nvidia-smi: 11 values agree",
        "GPU 0 profiling set: sm_active_percent 81.25",
        "GPU 0 energy",
    ):
        assert f"ok    {what}" in done.stdout
    assert "µs CPU of the reader" in done.stdout


def test_energy_that_does_not_fit_the_power_is_told(node: Node) -> None:
    node.driver.put({ENERGY: "5000000@200000"})
    assert set(node.failures()) == {"GPU 0 energy"}


def test_values_that_differ_are_named(node: Node) -> None:
    node.says({**row(0), "temperature.gpu": 77, "ecc.errors.corrected.aggregate.total": 4})
    (detail,) = node.failures().values()
    assert "temperature.gpu: nvidia-smi 77, Jobtrail 30.0" in detail
    assert "ecc.errors.corrected.aggregate.total: nvidia-smi 4" in detail


def test_a_value_only_one_of_both_knows_is_named(node: Node) -> None:
    node.says({**row(0), "temperature.memory": "N/A"})
    assert "temperature.memory: nvidia-smi N/A" in node.failures()["GPU 0 against nvidia-smi"]


def test_a_hopper_without_the_profiling_set_is_told_and_an_older_gpu_is_not(node: Node) -> None:
    node.driver.gpu(0, gpm=0)
    assert "sm_active_percent: not_supported" in node.failures()["GPU 0 profiling set"]
    node.says({**row(0), "compute_cap": "8.0"})
    done = node.check()
    assert done.returncode == 0, done.stdout
    assert "skip  GPU 0 profiling set" in done.stdout


def test_a_gpu_only_one_of_both_sees_is_told(node: Node) -> None:
    node.says(row(0), row(1))
    assert node.failures()["both find the same GPUs"] == "nvidia-smi 2, Jobtrail 1"


def test_what_cannot_be_checked_has_an_exit_status_of_its_own(node: Node) -> None:
    (node.driver.root / "dev/nvidiactl").unlink()
    done = node.check()
    assert (done.returncode, done.stdout) == (2, "")
    assert "no_driver" in done.stderr
    done = node.check("--nvidia-smi", "/nonexistent/nvidia-smi")
    assert done.returncode == 2
    assert "no NVIDIA driver" in done.stderr
    assert "--nvidia-smi" in done.stderr


def test_help_needs_nothing_installed() -> None:
    """It is what says what to install; without that, so does the message."""
    words = [sys.executable, "-I", "-S", str(REPOSITORY / "scripts/check_gpu")]
    helped = subprocess.run([*words, "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0, helped.stderr
    assert "pip install nvidia-ml-py msgspec" in helped.stdout
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install nvidia-ml-py msgspec" in done.stderr
