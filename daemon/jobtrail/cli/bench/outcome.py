"""How a run went, from its manifest: the status and why, and each figure with its unit and its repeats."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.cli.output import UNKNOWN, clean, table
from jobtrail.domain.benchmarks.metrics import METRICS
from jobtrail.domain.benchmarks.report import BenchmarkReport, Status
from jobtrail.domain.benchmarks.summary import summarise, values_of

STYLES = {Status.OK: "green", Status.FAILED: "red", Status.INVALID: "yellow"}


def figures(report: BenchmarkReport) -> list[dict[str, Any]]:
    """One row for each metric and statistic: the median over the repeats, and each repeat's own value."""
    by_repeat = [values_of(repeat.result) if repeat.result is not None else {} for repeat in report.repeats]
    return [
        {
            "metric": one.metric,
            "stat": one.stat,
            "value": one.value,
            "unit": METRICS[one.metric].unit,
            "repeats": [values.get((one.metric, one.stat)) for values in by_repeat],
        }
        for one in summarise(report).measurements
    ]


def as_values(report: BenchmarkReport, directory: RunDirectory, unreported: str | None) -> dict[str, Any]:
    """For a program: status, reason, figures, where everything lies, and why the daemon does not have the report."""
    summary = summarise(report)
    return {
        "run_uid": report.run_uid,
        "status": summary.status.value,
        "reason": summary.reason,
        "directory": str(directory.path),
        "jobs": [job.job_id for job in report.jobs],
        "figures": figures(report),
        "notes": list(summary.notes),
        "unreported": unreported,
    }


def print_outcome(out: Console, report: BenchmarkReport, directory: RunDirectory) -> None:
    """For a person."""
    summary = summarise(report)
    out.print(f"run {report.run_uid}: [{STYLES[summary.status]}]{summary.status.value}[/]")
    if summary.reason:
        out.print(clean(summary.reason))
    rows = [
        [
            row["metric"], row["stat"], quantity(row["value"], row["unit"]),
            "  ".join(quantity(value, row["unit"]) for value in row["repeats"]),
        ]
        for row in figures(report)
    ]  # fmt: skip
    if rows:
        out.print(table("", ("metric", "stat", "median", "each repeat"), rows))
    for note in summary.notes:
        out.print(clean(note), style="dim")
    out.print(clean(f"files in {directory.path}"), style="dim")


def quantity(value: float | None, unit: str | None) -> str:
    """A number with its unit; times below a second in ms."""
    if value is None:
        return UNKNOWN
    if unit == "s":
        return f"{number(value * 1000)} ms" if abs(value) < 1 else f"{number(value)} s"
    return number(value) if unit in (None, "count", "ratio") else f"{number(value)} {unit}"


def number(value: float | None) -> str:
    """Four digits that mean something, or more before the point."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if abs(value) >= 10_000 or value == int(value) else f"{value:.4g}"
