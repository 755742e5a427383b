"""What to do about a job: rules, each with the figures it rests on and, where one helps, a change of the batch script.

Nothing is advised to be asked for less of than was used: amounts have headroom and are rounded up. Where the figures
cover too little of a job, or it was too short, there is no such advice, and that is said. What ended a job is no matter
of coverage. The options are those of sbatch(1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jobtrail.domain.advice_on_ends import ends
from jobtrail.domain.advice_words import (
    amount,
    changes,
    clock,
    days_and_time,
    level_of,
    megabytes,
    memory_changes,
    memory_option,
    percent,
)
from jobtrail.domain.job_report import Advice, GpuLine, JobReport, NodeLine, Note
from jobtrail.domain.phrases import counted, describe_bytes
from jobtrail.domain.states import State, Verdict

SHORTEST_SECONDS = 120.0  # what lasts less says little of what a longer job needs
LEAST_COVERAGE = 0.8
LITTLE_USED = 0.5  # of memory, time or CPUs: below it, less is advised
NEAR_LIMIT = 0.95
MEMORY_HEADROOM = 1.2
TIME_HEADROOM = 1.5
CPU_HEADROOM = 1.25
LEAST_MEMORY_SAVED = 1 << 30
LEAST_TIME_SAVED = 1800.0
IDLE_NODE = 0.02
BUSY_NODE = 0.2
UNUSED_GPU = 0.9  # of the time it was looked at
LITTLE_BUSY_GPU = 0.15
SHORTEST_GPU_SECONDS = 600.0
_CACHE = "File cache counts in it and is given back when memory runs short. "


def advise(report: JobReport) -> Advice:
    """Notes on a run, the gravest first."""
    found = [*ends(report), *_near_limits(report), *_gpu_trouble(report)]
    withheld = _withheld(report)
    if withheld is None:
        found += [*_gpus(report), *_cpus(report), *_less_memory(report), *_less_time(report)]
        withheld = _withheld_of_outcome(report)
    return Advice(notes=tuple(sorted(found, key=level_of)), withheld=withheld)


def _withheld(report: JobReport) -> str | None:
    """Why nothing can be said of what the job needs; None where something can."""
    ran, coverage = report.time.ran_seconds, report.coverage
    if report.state == State.PENDING or ran is None:
        return "No advice on what to ask for: the job has not run, or nobody knows for how long."
    if not report.is_over:
        return "No advice on what to ask for yet: the job is still running."
    if ran < SHORTEST_SECONDS:
        return (
            f"No advice on what to ask for: the job ran for {clock(ran)}, and what lasts less than "
            f"{clock(SHORTEST_SECONDS)} says little of what a longer one needs."
        )
    if coverage.ratio is None and coverage.samples == 0:
        return "No advice on what to ask for: nobody measured what the job used."
    if coverage.ratio is None or coverage.ratio < LEAST_COVERAGE:
        covered = "an unknown part" if coverage.ratio is None else percent(coverage.ratio)
        return (
            f"No advice on what to ask for: the figures cover {covered} of the run, and less than "
            f"{percent(LEAST_COVERAGE)} is too little."
        )
    if not coverage.of_all_nodes:
        total = "an unknown number of nodes" if coverage.nodes_total is None else counted(coverage.nodes_total, "node")
        whose = "its" if coverage.nodes_total == 1 else "their"
        return f"No advice on what to ask for: {coverage.nodes_reporting} of {total} told of {whose} usage."
    return None


def _withheld_of_outcome(report: JobReport) -> str | None:
    """Whoever did not come to the end may have needed more later."""
    if report.verdict == Verdict.COMPLETED:
        return None
    how = (report.verdict or Verdict.UNKNOWN).replace("_", " ")
    return f"No advice on asking for less memory or time: the outcome is {how}, so the job may have needed more later."


def _near_limits(report: JobReport) -> Iterator[Note]:
    """Limits that nearly held the run up. Of one that goes on too: there is still time to act."""
    memory, time = report.memory, report.time
    killed = memory.oom_kills or report.out_of_memory_step or report.verdict == Verdict.OUT_OF_MEMORY
    if memory.ratio is not None and memory.ratio >= NEAR_LIMIT and not killed:
        assert memory.peak_bytes is not None and memory.limit_bytes is not None  # noqa: PT018 - a ratio has both
        more = int(max(memory.peak_bytes, memory.limit_bytes) * MEMORY_HEADROOM)
        yield Note(
            rule="memory_near_limit",
            level="warning",
            text=f"Memory came to {percent(memory.ratio)} of the limit. {_CACHE if memory.file_cache else ''}If the "
            "job was slow, or was killed, ask for more.",
            figures={"memory_peak_bytes": memory.peak_bytes, "memory_limit_bytes": memory.limit_bytes},
            changes=memory_changes(report, more),
        )
    if time.ratio is not None and time.ratio >= NEAR_LIMIT and report.verdict != Verdict.TIMEOUT:
        assert time.counted_seconds is not None and time.limit_seconds is not None  # noqa: PT018 - a ratio has both
        wanted = max(time.counted_seconds, time.limit_seconds) * TIME_HEADROOM
        yield Note(
            rule="time_near_limit",
            level="warning",
            text=f"The job took {percent(time.ratio)} of its time limit; on a slower node it is not done in time.",
            figures={"ran_seconds": time.counted_seconds, "limit_seconds": time.limit_seconds},
            changes=changes(report, days_and_time(wanted)),
        )


def _gpu_trouble(report: JobReport) -> Iterator[Note]:
    """What is wrong with a GPU, whatever the job made of it."""
    for gpu in report.gpu_lines:
        if gpu.errors:
            codes = ", ".join(f"{code} (x{times})" for code, times in sorted(gpu.errors.items()))
            yield Note(
                rule="gpu_errors",
                level="problem",
                text=f"The driver reported errors of GPU {gpu.gpu_id} on {gpu.node}: {codes}. If the job failed, tell "
                "the administrators these codes; for NVIDIA they are XIDs.",
                figures=dict(gpu.errors),
            )
        if gpu.mismatch:
            yield Note(
                rule="gpu_mismatch",
                level="warning",
                text=f"The figures of GPU {gpu.gpu_id} on {gpu.node} may not be this job's alone: {gpu.mismatch}.",
            )


def _gpus(report: JobReport) -> Iterator[Note]:
    unused = [gpu for gpu in report.gpu_lines if gpu.unused_ratio is not None and gpu.unused_ratio >= UNUSED_GPU]
    if unused:
        yield _unused_gpus(report, unused)
        return
    busy, ran = report.gpus.busy_ratio, report.time.ran_seconds
    if busy is not None and busy < LITTLE_BUSY_GPU and ran is not None and ran >= SHORTEST_GPU_SECONDS:
        yield Note(
            rule="gpu_little_busy",
            level="hint",
            text=f"The GPUs were {percent(busy)} busy on the mean. Look whether they wait for data, or work in batches "
            "that are too small; fewer GPUs may do.",
            figures={"gpu_busy_ratio": busy},
        )


def _unused_gpus(report: JobReport, unused: list[GpuLine]) -> Note:
    total, none_used = len(report.gpu_lines), len(unused) == len(report.gpu_lines)
    names = ", ".join(f"{gpu.gpu_id} on {gpu.node}" for gpu in unused[:4]) + (" and others" if len(unused) > 4 else "")
    idle_seconds = sum(gpu.unused_seconds or 0.0 for gpu in unused)
    kept = total - len(unused)
    asked = (
        "Take the request for GPUs (--gpus, --gres=gpu) out of the batch script."
        if none_used
        else "Ask for as many as the program uses, or make it use all; --gres=gpu:N is of each of several nodes."
    )
    return Note(
        rule="gpu_unused",
        level="warning",
        text=f"{len(unused)} of {counted(total, 'GPU')} had no process of the job for {percent(UNUSED_GPU)} of the "
        f"time or more: {names}. {asked}",
        figures={"gpus_unused": len(unused), "gpus": total, "unused_seconds": idle_seconds},
        changes=() if none_used else changes(report, f"--gpus={kept}"),
    )


def _cpus(report: JobReport) -> Iterator[Note]:
    cpu, nodes = report.cpu, [line for line in report.nodes if line.cpu_ratio is not None]
    if idle := _idle_nodes(nodes):
        kept = len(report.nodes) - len(idle)
        yield Note(
            rule="nodes_unused",
            level="warning",
            text=f"{len(idle)} of {len(report.nodes)} nodes did nothing: {', '.join(line.node for line in idle[:4])}. "
            "Start the program with srun or mpirun on all nodes, or ask for fewer.",
            figures={"nodes_unused": len(idle), "nodes": len(report.nodes)},
            changes=changes(report, f"--nodes={kept}"),
        )
        return
    if cpu.cores is None or cpu.cpus is None or cpu.ratio is None or cpu.ratio >= LITTLE_USED:
        return
    over = max(1, len(report.node_names))
    each, wanted = cpu.cpus // over, amount(cpu.cores / over * CPU_HEADROOM)
    if wanted < each:
        yield Note(
            rule="cpus_unused",
            level="warning" if cpu.ratio < LITTLE_USED / 2 else "hint",
            text=f"Of {cpu.cpus} CPUs {cpu.cores:.1f} were busy on the mean ({percent(cpu.ratio)}). Ask for fewer, or "
            "make the program use all (its threads, OMP_NUM_THREADS). The number is for one task a node; with more, "
            "ask for fewer tasks.",
            figures={"cpu_used_seconds": cpu.used_seconds or 0.0, "cpus": cpu.cpus, "cpu_ratio": cpu.ratio},
            changes=changes(report, f"--cpus-per-task={wanted}"),
        )


def _idle_nodes(nodes: list[NodeLine]) -> list[NodeLine]:
    """Nodes that did nothing while another worked."""
    shares: Mapping[str, float] = {line.node: line.cpu_ratio or 0.0 for line in nodes}
    if max(shares.values(), default=0.0) < BUSY_NODE:
        return []
    return [line for line in nodes if shares[line.node] < IDLE_NODE]


def _less_memory(report: JobReport) -> Iterator[Note]:
    memory = report.memory
    if report.verdict != Verdict.COMPLETED or memory.ratio is None or memory.ratio >= LITTLE_USED or memory.oom_kills:
        return
    # One amount for all nodes could be too little for another, and a task's for the others beside it.
    if memory.limit_of is not None or memory.of_one_task:
        return
    assert memory.peak_bytes is not None and memory.limit_bytes is not None  # noqa: PT018 - a ratio has both
    wanted = megabytes(int(memory.peak_bytes * MEMORY_HEADROOM)) << 20
    if memory.limit_bytes - wanted < LEAST_MEMORY_SAVED:
        return
    yield Note(
        rule="memory_unused",
        level="hint",
        text=f"Of {describe_bytes(memory.limit_bytes)} of memory a node, {describe_bytes(memory.peak_bytes)} were used "
        f"at most ({percent(memory.ratio)}). The job waits less if it asks for less; this leaves a fifth of headroom.",
        figures={"memory_peak_bytes": memory.peak_bytes, "memory_limit_bytes": memory.limit_bytes},
        changes=changes(report, memory_option(wanted)),
    )


def _less_time(report: JobReport) -> Iterator[Note]:
    time = report.time
    if report.verdict != Verdict.COMPLETED or time.ratio is None or time.ratio >= LITTLE_USED:
        return
    assert time.counted_seconds is not None and time.limit_seconds is not None  # noqa: PT018 - a ratio has both
    wanted = time.counted_seconds * TIME_HEADROOM
    if time.limit_seconds - wanted < LEAST_TIME_SAVED:
        return
    yield Note(
        rule="time_unused",
        level="hint",
        text=f"The job took {clock(time.counted_seconds)} of {clock(time.limit_seconds)} ({percent(time.ratio)}). With "
        "a shorter limit it starts sooner, because it fits into gaps between other jobs; this leaves half as much "
        "again.",
        figures={"ran_seconds": time.counted_seconds, "limit_seconds": time.limit_seconds},
        changes=changes(report, days_and_time(wanted)),
    )
