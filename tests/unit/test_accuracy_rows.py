"""The arithmetic of the accuracy benchmark: a wrong sign or a dropped job would make its table a lie."""

from __future__ import annotations

import msgspec
import pytest
from benchmarks.accuracy.rows import Measured, markdown, summarise, total_cpu_seconds, worst

JOB = Measured(
    wall_seconds=2,
    at_once=1,
    true_cpu_seconds=2.0,
    true_peak_bytes=100,
    slurm_cpu_seconds=2.1,
    slurm_peak_bytes=None,
    node_cpu_seconds=1.9,
    cpu_seconds=2.02,
    peak_bytes=90,
    coverage_ratio=0.9,
    samples=5,
    sources={"usage": "cgroup_v1", "cpu": "parent_counter"},
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:03.409", 3.409),
        ("01:02:03", 3723.0),
        ("1-00:00:01", 86_401.0),
        ("00:00:00", None),
        ("", None),
        ("3.5", None),
    ],
)
def test_total_cpu_of_sacct(text: str, seconds: float | None) -> None:
    """None is for what Slurm does not know: no job uses no CPU time."""
    assert total_cpu_seconds(text) == seconds


def test_the_worst_error_keeps_its_sign() -> None:
    """The farthest from zero."""
    assert worst([1.0, -3.0, 2.0]) == -3.0


def test_errors_are_recorded_less_true() -> None:
    """Median and worst, in milliseconds and per cent of each job's own truth."""
    low = msgspec.structs.replace(JOB, cpu_seconds=1.0, coverage_ratio=0.5, sources={})
    row = summarise([JOB, JOB, low])
    assert row.cpu_error_ms == pytest.approx((20.0, -1000.0))
    assert row.cpu_error_percent == pytest.approx((1.0, -50.0))
    assert row.cpu_error_percent_of_slurm == pytest.approx(((2.02 / 2.1 - 1) * 100, (1 / 2.1 - 1) * 100))
    assert row.peak_error_percent == pytest.approx((-10.0, -10.0))
    assert row.coverage_ratio == (0.9, 0.5)
    assert row.sources == {"cpu=parent_counter usage=cgroup_v1": 2, "none": 1}


def test_jobs_without_a_value_are_counted_and_not_taken_for_zero() -> None:
    """They make no error of 100 %, and they do not disappear."""
    nothing = msgspec.structs.replace(JOB, cpu_seconds=None, peak_bytes=None, coverage_ratio=None)
    row = summarise([JOB, nothing])
    assert (row.jobs, row.without_cpu) == (2, 1)
    assert row.cpu_error_percent == pytest.approx((1.0, 1.0))
    assert row.slurm_peak_error_percent is None
    table = markdown([row, summarise([nothing])])
    assert "2, 1 without CPU time" in table
    assert "1, 1 without CPU time" in table
    assert table.splitlines()[-1].count(chr(0x2013)) == 6  # a dash for each value there is not
