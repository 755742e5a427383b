"""Recorded CPU time and memory peak beside what the jobs themselves (getrusage) and Slurm (sacct) say.

Runs real jobs on a real cluster for about four minutes. Needs root and Slurm's daemons, as the tests in tests/slurm do.
"""

from __future__ import annotations

from benchmarks.accuracy.cluster import Sources, run
from benchmarks.accuracy.rows import Row, summarise
from benchmarks.figures import Figure, at_most

AIM_PERCENT = 2.0


def measure() -> list[Figure]:
    """The CPU error of each length, and of how many jobs none was recorded."""
    return [figure for jobs in run(Sources()) for figure in _figures(summarise(jobs))]


def _figures(row: Row) -> list[Figure]:
    what = f"{row.at_once} × {row.wall_seconds:g} s"
    aimed = row.wall_seconds >= 1
    found = []
    if row.cpu_error_percent is not None:
        found.append(
            Figure(
                what=f"CPU error, {what}, median",
                value=row.cpu_error_percent[0],
                unit="%",
                target=f"within {AIM_PERCENT:g} %" if aimed else "",
                met=at_most(AIM_PERCENT, abs(row.cpu_error_percent[0])) if aimed else None,
            )
        )
    if row.peak_error_percent is not None:
        found.append(Figure(what=f"peak memory error, {what}, median", value=row.peak_error_percent[0], unit="%"))
    if row.coverage_ratio is not None:
        found.append(Figure(what=f"coverage ratio, {what}, least", value=row.coverage_ratio[1], unit=""))
    without = row.without_cpu
    return [*found, Figure(what=f"jobs without CPU time, {what}", value=without, unit="", target="0", met=without == 0)]
