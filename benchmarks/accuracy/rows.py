"""Arithmetic of the comparison: what was recorded against what the jobs themselves and Slurm say."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence

import msgspec

_TOTAL_CPU = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+(?:\.\d+)?)")
MIB = 2**20


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One job: what it knows of itself (getrusage), what Slurm says (sacct), and what Jobtrail recorded."""

    wall_seconds: float  # as planned
    at_once: int
    true_cpu_seconds: float
    true_peak_bytes: int
    slurm_cpu_seconds: float | None
    slurm_peak_bytes: int | None
    node_cpu_seconds: float | None  # by the node's daemon alone, before Slurm's accounting was asked
    cpu_seconds: float | None
    peak_bytes: int | None
    coverage_ratio: float | None
    samples: int
    sources: dict[str, str]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one length, so many at a time. Errors are recorded less true; worst is the largest of either sign."""

    wall_seconds: float
    at_once: int
    jobs: int
    without_cpu: int  # jobs of which no CPU time was recorded
    true_cpu_seconds: float  # median
    cpu_error_ms: tuple[float, float] | None  # median, worst
    cpu_error_percent: tuple[float, float] | None
    cpu_error_percent_of_slurm: tuple[float, float] | None  # against sacct's TotalCPU
    node_cpu_error_ms: tuple[float, float] | None
    slurm_cpu_error_ms: tuple[float, float] | None  # of sacct's TotalCPU against getrusage
    true_peak_bytes: float
    peak_error_percent: tuple[float, float] | None
    slurm_peak_error_percent: tuple[float, float] | None
    coverage_ratio: tuple[float, float] | None  # median, least
    samples: float
    sources: dict[str, int]  # how many jobs had which


def total_cpu_seconds(text: str) -> float | None:
    """Seconds in sacct's TotalCPU, [days-][hours:]minutes:seconds; None for nothing, which no job uses."""
    match = _TOTAL_CPU.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds or None


def sources_of(sources: dict[str, str]) -> str:
    """One word for where a job's values came from."""
    return " ".join(f"{name}={sources[name]}" for name in sorted(sources)) or "none"


def worst(values: Sequence[float]) -> float:
    """The value farthest from zero."""
    return max(values, key=abs)


def errors(
    jobs: Sequence[Measured],
    value: Callable[[Measured], float | None],
    truth: Callable[[Measured], float | None],
    scale: float | None = None,
) -> tuple[float, float] | None:
    """Median and worst of `value` less `truth`, times `scale`, or in per cent of the truth; None without any pair."""
    found = []
    for job in jobs:
        recorded, true = value(job), truth(job)
        if recorded is not None and true:
            found.append((recorded - true) * (scale if scale is not None else 100 / true))
    return (statistics.median(found), worst(found)) if found else None


def summarise(jobs: Sequence[Measured]) -> Row:
    """The row of jobs that were alike."""
    covered = [job.coverage_ratio for job in jobs if job.coverage_ratio is not None]
    words = [sources_of(job.sources) for job in jobs]
    return Row(
        wall_seconds=jobs[0].wall_seconds,
        at_once=jobs[0].at_once,
        jobs=len(jobs),
        without_cpu=sum(job.cpu_seconds is None for job in jobs),
        true_cpu_seconds=statistics.median(job.true_cpu_seconds for job in jobs),
        cpu_error_ms=errors(jobs, lambda job: job.cpu_seconds, lambda job: job.true_cpu_seconds, 1e3),
        cpu_error_percent=errors(jobs, lambda job: job.cpu_seconds, lambda job: job.true_cpu_seconds),
        cpu_error_percent_of_slurm=errors(jobs, lambda job: job.cpu_seconds, lambda job: job.slurm_cpu_seconds),
        node_cpu_error_ms=errors(jobs, lambda job: job.node_cpu_seconds, lambda job: job.true_cpu_seconds, 1e3),
        slurm_cpu_error_ms=errors(jobs, lambda job: job.slurm_cpu_seconds, lambda job: job.true_cpu_seconds, 1e3),
        true_peak_bytes=statistics.median(job.true_peak_bytes for job in jobs),
        peak_error_percent=errors(jobs, lambda job: job.peak_bytes, lambda job: job.true_peak_bytes),
        slurm_peak_error_percent=errors(jobs, lambda job: job.slurm_peak_bytes, lambda job: job.true_peak_bytes),
        coverage_ratio=(statistics.median(covered), min(covered)) if covered else None,
        samples=statistics.median(job.samples for job in jobs),
        sources={word: words.count(word) for word in sorted(set(words))},
    )


def markdown(rows: Sequence[Row]) -> str:
    """The table of docs/accuracy.md."""
    lines = [
        "| jobs of | at once | jobs | CPU s, true | CPU error, ms | CPU error, % | against sacct, % "
        "| sacct's own error, ms | peak error, % | MaxRSS error, % | coverage | samples |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{row.wall_seconds:g} s",
            str(row.at_once),
            str(row.jobs) + (f", {row.without_cpu} without CPU time" if row.without_cpu else ""),
            f"{row.true_cpu_seconds:.3f}",
            pair(row.cpu_error_ms, "{:+.1f}"),
            pair(row.cpu_error_percent, "{:+.2f}"),
            pair(row.cpu_error_percent_of_slurm, "{:+.2f}"),
            pair(row.slurm_cpu_error_ms, "{:+.1f}"),
            pair(row.peak_error_percent, "{:+.1f}"),
            pair(row.slurm_peak_error_percent, "{:+.1f}"),
            pair(row.coverage_ratio, "{:.2f}"),
            f"{row.samples:g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pair(values: tuple[float, float] | None, form: str) -> str:
    """Median and worst, or a dash."""
    return "–" if values is None else f"{form.format(values[0])} ({form.format(values[1])})"
