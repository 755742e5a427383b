"""A run in one line, for the AdminComment that sacct(1) shows beside the job.

Plain ASCII without quotes, `|` and `=`: sacctmgr(1) turns quotes into backticks, and `|` parts the columns of
`sacct --parsable`. Before Slurm 23 sacctmgr writes it in small letters, so case means nothing in it.
"""

from __future__ import annotations

from jobtrail.domain.job_report import JobReport
from jobtrail.domain.job_report_words import joules
from jobtrail.domain.phrases import counted, describe_bytes
from jobtrail.domain.states import Verdict

MARK = "jobtrail: "
MOST_CHARACTERS = 250
UNKNOWN = "not known"


def is_ours(text: str) -> bool:
    """Whether an AdminComment is one of these lines, whichever letters Slurm made of it."""
    return text.casefold().startswith(MARK)


def summary_line(report: JobReport) -> str:
    """Verdict, CPU, memory, GPUs where there were any, energy where it was measured, and what part the figures are of.

    What is unknown is called so, and never 0.
    """
    verdict = (report.verdict or Verdict.UNKNOWN).replace("_", " ")
    parts = [verdict, _cpu(report), _memory(report)]
    if report.has_gpus:
        parts.append(_gpus(report))
    if report.energy.joules is not None:
        parts.append(f"energy {joules(report.energy.joules)}{_covered(report.energy.coverage_ratio)}")
    parts += _gaps(report)
    return (MARK + ", ".join(parts))[:MOST_CHARACTERS]


def _percent(ratio: float) -> str:
    """Small shares are not called nothing."""
    return "under 1%" if 0 < ratio < 0.01 else f"{100 * ratio:.0f}%"


def _cpu(report: JobReport) -> str:
    ratio, cpus = report.cpu.ratio, report.cpu.cpus
    of = "" if cpus is None else f" of {counted(cpus, 'CPU')}"
    return f"CPU {UNKNOWN}" if ratio is None else f"CPU {_percent(ratio)}{of}"


def _memory(report: JobReport) -> str:
    memory = report.memory
    if memory.peak_bytes is None:
        return f"memory {UNKNOWN}"
    if memory.ratio is None or memory.limit_bytes is None:
        return f"memory {describe_bytes(memory.peak_bytes)}"
    return f"memory {_percent(memory.ratio)} of {describe_bytes(memory.limit_bytes)}"


def _gpus(report: JobReport) -> str:
    count = len(report.gpu_lines) if report.gpus.allocated is None else report.gpus.allocated
    of = f" of {counted(count, 'GPU')}" if count else ""
    busy = report.gpus.busy_ratio
    return f"GPU {UNKNOWN}" if busy is None else f"GPU {_percent(busy)}{of}"


def _covered(ratio: float | None) -> str:
    return "" if ratio is None or ratio >= 0.995 else f" over {_percent(ratio)} of the run"


def _gaps(report: JobReport) -> list[str]:
    """Why the figures may be too small."""
    coverage = report.coverage
    if coverage.samples and not coverage.of_all_nodes:
        total = "an unknown number of nodes" if coverage.nodes_total is None else counted(coverage.nodes_total, "node")
        return [f"figures of {coverage.nodes_reporting} of {total}"]
    return []
