"""A run in one line for Slurm's accounting: plain figures, no invented ones."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobtrail.domain.admin_comment import MOST_CHARACTERS, is_ours, summary_line
from jobtrail.domain.job_report_making import make_report
from tests.job_rows import gpu_row, job_row

BEGIN = datetime(2026, 11, 21, 8, tzinfo=UTC)
GIB = 1 << 30
MEASURED: dict[str, Any] = {
    "start_time": BEGIN, "end_time": BEGIN + timedelta(seconds=1000), "cpus_allocated": 4, "cpu_seconds": 3400.0,
    "memory_peak_bytes": 3 * GIB, "memory_limit_bytes": 4 * GIB, "sample_count": 60,
}  # fmt: skip


def line(gpus: list[dict[str, Any]] | None = None, **known: Any) -> str:
    job = job_row(**{**MEASURED, **known})
    report = make_report(job, sentence="", nodes=(), gpus=gpus or (), other_runs=(), now=BEGIN)
    return summary_line(report)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB"),
        ({"verdict": "out_of_memory"}, "jobtrail: out of memory, CPU 85% of 4 CPUs, memory 75% of 4 GiB"),
        ({"verdict": None}, "jobtrail: unknown, CPU 85% of 4 CPUs, memory 75% of 4 GiB"),
        ({"cpus_allocated": 1}, "jobtrail: completed, CPU 340% of 1 CPU, memory 75% of 4 GiB"),
        ({"cpu_seconds": 0.5}, "jobtrail: completed, CPU under 1% of 4 CPUs, memory 75% of 4 GiB"),
        ({"cpu_seconds": 0.0}, "jobtrail: completed, CPU 0% of 4 CPUs, memory 75% of 4 GiB"),
        ({"memory_limit_bytes": None}, "jobtrail: completed, CPU 85% of 4 CPUs, memory 3 GiB"),
        (
            {"energy_joules": 12_500.0},
            "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB, energy 12.5 kJ",
        ),
        (
            {"energy_joules": 12_500.0, "energy_coverage_ratio": 0.4},
            "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB, energy 12.5 kJ over 40% of the run",
        ),
        (
            {"energy_joules": 12_500.0, "energy_coverage_ratio": 1.0},
            "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB, energy 12.5 kJ",
        ),
        (
            {"gpus_allocated": 2, "gpu_seconds": 2000.0, "gpu_busy_seconds": 250.0},
            "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB, GPU 12% of 2 GPUs",
        ),
        (
            {"gpus_allocated": 1, "gpu_seconds": 1000.0, "gpu_busy_seconds": 0.0},
            "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB, GPU 0% of 1 GPU",
        ),
        (
            {"nodes_reporting": 2, "nodes_total": 4},  # CPU time of two nodes, and nobody says how many CPUs they had
            "jobtrail: completed, CPU not known, memory 75% of 4 GiB, figures of 2 of 4 nodes",
        ),
        (
            {"nodes_reporting": 0},
            "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB, figures of 0 of 1 node",
        ),
        (
            {"nodes_total": None},
            "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB, figures of 1 of an unknown number of nodes",
        ),
    ],
)
def test_the_line(known: dict[str, Any], expected: str) -> None:
    assert line(**known) == expected


def test_what_is_unknown_is_called_so_and_never_0() -> None:
    told = line(cpu_seconds=None, memory_peak_bytes=None, cpus_allocated=None, gpus_allocated=2, sample_count=0)
    assert told == "jobtrail: completed, CPU not known, memory not known, GPU not known"


def test_gpus_that_were_looked_at_and_of_which_slurm_said_nothing_are_counted() -> None:
    assert line([gpu_row("a"), gpu_row("b")], gpu_seconds=10.0, gpu_busy_seconds=5.0).endswith(", GPU 50% of 2 GPUs")


def test_it_is_short_and_holds_nothing_that_slurm_would_change() -> None:
    longest = line(
        verdict="killed_by_signal", cpus_allocated=123_456, gpus_allocated=123_456, gpu_seconds=1.0,
        gpu_busy_seconds=0.001, energy_joules=1e15, energy_coverage_ratio=0.001, nodes_reporting=9999,
        nodes_total=10**6,
    )  # fmt: skip
    assert len(longest) <= MOST_CHARACTERS
    assert set(longest) <= set(string.ascii_letters + string.digits + " .,:%")


@pytest.mark.parametrize(
    ("text", "ours"),
    [("jobtrail: completed", True), ("Jobtrail: Completed", True), ("see jobtrail: x", False), ("", False)],
)
def test_ours_is_known_in_whatever_letters(text: str, *, ours: bool) -> None:
    assert is_ours(text) is ours
