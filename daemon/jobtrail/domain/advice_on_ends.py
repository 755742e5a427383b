"""What to do about the way a run ended: out of memory or time, cancelled, preempted, a failed node, run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from jobtrail.domain.advice_words import changes, clock, days_and_time, memory_changes
from jobtrail.domain.job_report import JobReport, Note
from jobtrail.domain.phrases import describe_bytes
from jobtrail.domain.states import Verdict

MEMORY_FACTOR = 1.5  # of the limit that was too low: how much was wanted beyond it, nobody measured
TIME_FACTOR = 1.5
# Without it, the output file of a run that is started again begins anew: sbatch(1), --open-mode.
APPEND = "--open-mode=append"


def ends(report: JobReport) -> Iterator[Note]:
    """Notes on how the run ended, and on what ran before it under the same id."""
    out_of_memory = report.verdict == Verdict.OUT_OF_MEMORY
    if out_of_memory or report.out_of_memory_step or report.memory.oom_kills:
        yield _more_memory(report, "problem" if out_of_memory else "warning")
    verdict = report.verdict
    if verdict is not None and verdict in _BY_VERDICT:
        yield _BY_VERDICT[Verdict(verdict)](report)
    if report.restart_count or report.run > 1:
        yield _again(report)


def _more_memory(report: JobReport, level: str) -> Note:
    memory = report.memory
    had = memory.limit_bytes if memory.limit_bytes is not None else memory.peak_bytes
    who = "The job" if level == "problem" else "A process of the job"
    measured = {
        "memory_limit_bytes": memory.limit_bytes, "memory_peak_bytes": memory.peak_bytes, "oom_kills": memory.oom_kills,
    }  # fmt: skip
    figures: dict[str, float | int | str] = {name: value for name, value in measured.items() if value is not None}
    if had is None:
        text = f"{who} was killed because memory ran out. Ask for more; how much it had is not known."
        return Note(rule="out_of_memory", level=level, text=text, figures=figures)
    where = "a node" if memory.limit_of is None else f"on {memory.limit_of}, the node nearest to its own"
    limit = "a limit of" if memory.limit_bytes is not None else "a peak of"
    return Note(
        rule="out_of_memory",
        level=level,
        text=f"{who} was killed because memory ran out, at {limit} {describe_bytes(had)} {where}. Ask for more: how "
        "much it would have needed was not measured, so begin with half as much again.",
        figures=figures,
        changes=memory_changes(report, int(had * MEMORY_FACTOR)),
    )


def _timeout(report: JobReport) -> Note:
    limit = report.time.limit_seconds
    text = (
        "Ask for more time if the job was getting on, or have it write checkpoints: --signal=B:USR1@300 tells the "
        "batch script five minutes before the end."
    )
    if limit is None:
        return Note(rule="timeout", level="problem", text=f"The job was ended at its time limit. {text}")
    return Note(
        rule="timeout",
        level="problem",
        text=f"The job was ended at its time limit of {clock(limit)}. {text}",
        figures={"limit_seconds": limit},
        changes=changes(report, days_and_time(limit * TIME_FACTOR)),
    )


def _cancelled(report: JobReport) -> Note:
    if report.start_time is None:
        text = "The job was cancelled before it started, so there is nothing to improve on. Submit it again if wanted."
    else:
        text = (
            "The job was cancelled: that is a person's or a program's decision, not a lack of anything. Submit it "
            "again if it is wanted; what it had done counts only if it wrote checkpoints."
        )
    return Note(rule="cancelled", level="hint", text=text)


def _preempted(report: JobReport) -> Note:
    return Note(
        rule="preempted",
        level="warning",
        text="The job had to make room for another. Have it write checkpoints and let Slurm start it again.",
        changes=changes(report, "--requeue", APPEND),
    )


def _node_failed(report: JobReport) -> Note:
    return Note(
        rule="node_failed",
        level="problem",
        text="A node failed under the job, which is not the job's fault: submit it again, or let Slurm do that.",
        changes=changes(report, "--requeue", APPEND),
    )


def _requeued(report: JobReport) -> Note:
    return Note(
        rule="requeued",
        level="hint",
        text="This run was ended so that the job could run again: the next run has figures of its own.",
        changes=changes(report, APPEND),
    )


def _again(report: JobReport) -> Note:
    restarts = report.restart_count
    counted = "" if restarts is None else f" Slurm counts {restarts} restart{'s' if restarts != 1 else ''}."
    return Note(
        rule="ran_before",
        level="hint",
        text=f"This is run {report.run} of the job; the figures are of this run alone.{counted}",
        figures={"run": report.run} | ({} if restarts is None else {"restart_count": restarts}),
    )


_BY_VERDICT: Mapping[Verdict, Callable[[JobReport], Note]] = MappingProxyType(
    {
        Verdict.TIMEOUT: _timeout,
        Verdict.CANCELLED: _cancelled,
        Verdict.PREEMPTED: _preempted,
        Verdict.NODE_FAIL: _node_failed,
        Verdict.REQUEUED: _requeued,
    }
)
