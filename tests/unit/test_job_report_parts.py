"""What a report on a job of several nodes, or of one that goes on, sets against what: never one thing's use against
another's whole."""

from datetime import timedelta
from typing import Any

import pytest

from jobtrail.domain.job_report_making import make_report
from jobtrail.domain.job_report_words import figures
from tests.job_rows import job_row, node_row
from tests.unit.test_job_report import BEGIN, GIB, HOUR, notes, report


def test_usage_so_far_is_set_against_the_time_up_to_its_last_sample() -> None:
    """Usage of a running job comes in reports minutes apart: what was allocated since the last one is no waste."""
    job = job_row(
        start_time=BEGIN, last_sample_at=BEGIN + timedelta(hours=1), state="running", verdict=None, cpus_allocated=4,
        cpu_seconds=4.0 * HOUR, gpus_allocated=2, gpu_seconds=2.0 * HOUR,
    )  # fmt: skip
    parts = [
        node_row(name, started_at=BEGIN, last_sample_at=BEGIN + timedelta(hours=1), cpus=2, cpu_seconds=2.0 * HOUR)
        for name in ("n1", "n2")
    ]
    told = make_report(
        job, sentence="It runs.", nodes=parts, gpus=[], other_runs=[], now=BEGIN + timedelta(hours=2)
    )  # fmt: skip
    assert (told.cpu.ratio, told.cpu.cores, told.gpus.coverage_ratio) == (1.0, 4.0, 1.0)
    assert [line.cpu_ratio for line in told.nodes] == [1.0, 1.0]
    assert told.time.ran_seconds == 2 * HOUR


@pytest.mark.parametrize(
    ("cpus", "source", "told"),
    [
        (4, "parent_counter", (0.9, 4)),  # of the node that told: nobody knows what the other did
        (None, "parent_counter", (None, None)),
        (4, "slurm_accounting", (0.45, 8)),  # which knows of all nodes
    ],
)
def test_cpu_time_of_some_nodes_is_set_against_their_cpus(
    cpus: int | None, source: str, told: tuple[float | None, int | None]
) -> None:
    parts = [node_row("n1", cpus=cpus), node_row("n2", cpus=4, sample_count=0)]
    made = report(
        parts=parts, cpus_allocated=8, nodes_total=2, nodes_reporting=1, usage_sources={"cpu": source},
    )  # fmt: skip
    assert (made.cpu.ratio, made.cpu.cpus) == (None if told[0] is None else pytest.approx(told[0]), told[1])


def test_of_a_running_job_without_a_sample_no_share_is_told() -> None:
    told = report(seconds=None, state="running", verdict=None, cpu_seconds=60.0)
    assert (told.cpu.ratio, told.cpu.cores) == (None, None)


def test_time_for_which_a_job_was_suspended_does_not_count_against_its_limit() -> None:
    """Slurm moves the end on by it when the job resumes (slurmctld, job_mgr.c)."""
    told = report(seconds=4 * HOUR, suspended_seconds=2.0 * HOUR, time_limit_seconds=4 * HOUR)
    assert told.time.ratio == 0.5
    assert "time_near_limit" not in notes(told)
    unused = report(seconds=4 * HOUR, suspended_seconds=3.0 * HOUR, time_limit_seconds=10 * HOUR)
    assert notes(unused)["time_unused"].changes == ("#SBATCH --time=01:30:00",)
    assert notes(unused)["time_unused"].text.startswith("The job took 1 h of 10 h (10 %).")


def test_of_slurms_accounting_nothing_is_said_of_file_cache() -> None:
    """MaxRSS is the largest resident set of one task: sacct(1)."""
    sources = {"usage": "cgroup_v2", "memory_peak": "slurm_accounting"}
    near = notes(report(memory_peak_bytes=8 * GIB - 1, usage_sources=sources))["memory_near_limit"]
    assert "cache" not in near.text
    assert "cache" in notes(report(memory_peak_bytes=8 * GIB - 1, usage_sources={"usage": "cgroup_v1"}))[
        "memory_near_limit"
    ].text  # fmt: skip
    assert notes(report(memory_peak_bytes=GIB, memory_limit_bytes=64 * GIB, usage_sources=sources)) == {}


def test_where_limits_differ_the_node_nearest_to_its_own_tells() -> None:
    """With --mem-per-cpu a node with fewer CPUs has the smaller limit, and the larger one is none of its."""
    parts = [
        node_row("n1", memory_peak_bytes=2 * GIB, memory_limit_bytes=32 * GIB),
        node_row("n2", memory_peak_bytes=4 * GIB - 1, memory_limit_bytes=4 * GIB),
    ]
    told = report(
        parts=parts, memory_peak_bytes=4 * GIB - 1, memory_limit_bytes=32 * GIB, nodes_total=2, nodes_reporting=2
    )  # fmt: skip
    assert (told.memory.limit_bytes, told.memory.limit_of) == (4 * GIB, "n2")
    assert told.memory.ratio == pytest.approx(1.0)
    assert [line.memory_ratio for line in told.nodes] == pytest.approx([1 / 16, 1.0])
    figure = {one.label: one for one in figures(told)}["Memory"]
    assert "limit 4 GiB on n2, nearest to its own" in figure.details
    assert set(notes(told)) == {"memory_near_limit"}
    assert notes(told)["memory_near_limit"].changes == ()


def test_where_limits_differ_no_one_amount_for_all_nodes_is_advised() -> None:
    parts = [
        node_row("n1", memory_peak_bytes=2 * GIB, memory_limit_bytes=32 * GIB),
        node_row("n2", memory_peak_bytes=GIB, memory_limit_bytes=8 * GIB),
    ]
    known: dict[str, Any] = {
        "parts": parts, "memory_peak_bytes": 2 * GIB, "memory_limit_bytes": 32 * GIB, "nodes_total": 2,
        "nodes_reporting": 2,
    }  # fmt: skip
    assert notes(report(**known)) == {}
    killed = notes(report(**known, verdict="out_of_memory"))["out_of_memory"]
    assert killed.changes == ()
    assert "half as much again" in killed.text
