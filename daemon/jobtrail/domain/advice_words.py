"""Amounts as advice names them: rounded up, so that what was used still fits, in the forms that sbatch(1) takes."""

from __future__ import annotations

import math

from jobtrail.domain.job_report import JobReport, Note
from jobtrail.domain.phrases import describe_duration

_LEVELS = ("problem", "warning", "hint")
_MEBIBYTE = 1 << 20
_MINUTE = 60


def level_of(note: Note) -> int:
    """Its place in a list that begins with the gravest."""
    return _LEVELS.index(note.level)


def percent(ratio: float) -> str:
    """A share as people say it; small ones are not called nothing."""
    if 0 < ratio < 0.01:
        return "less than 1 %"
    return f"{100 * ratio:.0f} %"


def clock(seconds: float) -> str:
    """A time span in words."""
    return describe_duration(round(seconds) * 1_000_000)


def amount(number: float) -> int:
    """A whole number, at least one, and never less than `number`."""
    return max(1, math.ceil(number))


def megabytes(size_bytes: int) -> int:
    """MiB, rounded up: to 64 below 1 GiB, to 256 below 8 GiB, to whole GiB from there on."""
    exact = math.ceil(size_bytes / _MEBIBYTE)
    step = 64 if exact < 1024 else 256 if exact < 8192 else 1024
    return max(step, math.ceil(exact / step) * step)


def memory_option(size_bytes: int) -> str:
    """`--mem`, which is of each node; sbatch's M and G are MiB and GiB."""
    whole = megabytes(size_bytes)
    return f"--mem={whole // 1024}G" if whole % 1024 == 0 else f"--mem={whole}M"


def days_and_time(seconds: float) -> str:
    """`--time`, rounded up: to 5 minutes below 2 hours, to 15 below a day, to whole hours from there on."""
    minutes = math.ceil(seconds / _MINUTE)
    step = 5 if minutes < 120 else 15 if minutes < 1440 else 60
    rounded = max(step, math.ceil(minutes / step) * step)
    hours, minutes = divmod(rounded, _MINUTE)
    days, hours = divmod(hours, 24)
    return f"--time={days}-{hours:02d}:{minutes:02d}:00" if days else f"--time={hours:02d}:{minutes:02d}:00"


def changes(report: JobReport, *options: str) -> tuple[str, ...]:
    """Lines for a batch script; none for a local job, which has no such script."""
    return tuple(f"#SBATCH {option}" for option in options) if report.job_id.startswith("slurm-") else ()


def memory_changes(report: JobReport, size_bytes: int) -> tuple[str, ...]:
    """The line that asks for this much on each node; none where nodes had different limits: one size fits not all."""
    return changes(report, memory_option(size_bytes)) if report.memory.limit_of is None else ()
