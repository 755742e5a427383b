"""A report in words: each figure with what it is of, the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from jobtrail.domain.advice_words import clock, percent
from jobtrail.domain.job_report import Energy, JobReport, Memory
from jobtrail.domain.phrases import counted, describe_bytes, describe_duration

UNKNOWN = "not known"
UNLIMITED = "unlimited"  # why there is no limit: the kernel knows none
JOULES_PER_KWH = 3_600_000
FEW_SECONDS = 10.0
LEAST_KWH = JOULES_PER_KWH / 10  # in joules: from here on energy is told in kilowatt-hours


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a report. `ratio` is for a bar, from 0 to 1 or a little above; None has no bar."""

    label: str
    value: str
    ratio: float | None = None
    details: tuple[str, ...] = ()


def figures(report: JobReport) -> Iterator[Figure]:
    """What a run used of what it had, what was not asked for left out."""
    yield _cpu(report)
    yield _memory(report)
    if report.has_gpus:
        yield _gpus(report)
    yield _time(report)
    yield _io(report)
    yield _energy(report.energy)
    if report.energy.joules is not None:
        yield _emissions(report.energy)
    yield _coverage(report)


def share(ratio: float | None) -> str:
    """A ratio in per cent."""
    return UNKNOWN if ratio is None else percent(ratio)


def span(seconds: float | None) -> str:
    """A time span; of a few seconds also the hundredths, or little would be left of what a short job used."""
    if seconds is None:
        return UNKNOWN
    if 0 < seconds < FEW_SECONDS:
        return describe_duration(round(seconds * 1_000_000))
    return clock(seconds) if seconds else "0 s"


def size(amount: float | None) -> str:
    """Bytes with a binary unit."""
    return UNKNOWN if amount is None else describe_bytes(int(amount))


def joules(amount: float | None) -> str:
    """Energy as 512 J, 12.5 kJ, or, from a tenth of a kilowatt-hour on, 1.25 kWh."""
    if amount is None:
        return UNKNOWN
    if amount >= LEAST_KWH:
        return f"{amount / JOULES_PER_KWH:.2f} kWh"
    return f"{amount / 1000:.1f} kJ" if amount >= 1000 else f"{amount:.0f} J"


def grams(amount: float | None) -> str:
    """A mass as 0.512 g, 51 g or 1.25 kg."""
    if amount is None:
        return UNKNOWN
    return f"{amount / 1000:.2f} kg" if amount >= 999.5 else f"{amount:.3g} g"


def errors(by_code: Mapping[str, int]) -> str:
    """What a GPU's driver told, by code."""
    return ", ".join(
        f"error {code}{f', {times} times' if times > 1 else ''}" for code, times in sorted(by_code.items())
    )


def _said(*parts: str | None) -> tuple[str, ...]:
    return tuple(part for part in parts if part)


def _by(source: str | None) -> str | None:
    return f"by {source.replace('_', ' ')}" if source else None


def _cpu(report: JobReport) -> Figure:
    cpu = report.cpu
    busy = None
    if cpu.cores is not None and cpu.cpus is not None:
        busy = f"{cpu.cores:.1f} of {counted(cpu.cpus, 'CPU')} busy on the mean"
    of = "" if cpu.allocated_seconds is None else f" of {span(cpu.allocated_seconds)}"
    used = f"{span(cpu.used_seconds)}{of} of CPU time"
    throttled = f"held back for {span(cpu.throttled_seconds)}" if cpu.throttled_seconds else None
    known = share(cpu.ratio) if cpu.ratio is not None or cpu.used_seconds is None else span(cpu.used_seconds)
    details = () if cpu.used_seconds is None else _said(busy, used, throttled, _by(cpu.source))
    return Figure(label="CPU", value=known, ratio=cpu.ratio, details=details)


def _memory(report: JobReport) -> Figure:
    memory = report.memory
    whose = "a node" if memory.limit_of is None else f"on {memory.limit_of}, nearest to its own"
    none = "no limit" if report.absent.get("memory_limit_bytes") == UNLIMITED else "no limit known"
    of = none if memory.limit_bytes is None else f"limit {size(memory.limit_bytes)} {whose}"
    kills = f"out-of-memory kills: {memory.oom_kills}" if memory.oom_kills else None
    known = share(memory.ratio) if memory.ratio is not None else size(memory.peak_bytes)
    least = "at least " if memory.of_one_task and memory.peak_bytes is not None else ""
    details = _said(_peak(memory), of, kills, _by(memory.source))
    return Figure(label="Memory", value=f"{least}{known}", ratio=memory.ratio, details=details)


def _peak(memory: Memory) -> str | None:
    if memory.peak_bytes is None:
        return None
    if memory.of_one_task:
        return f"one task had {size(memory.peak_bytes)}, others' not added"
    where = "one node" if memory.limit_of is None else "it"
    return f"at most {size(memory.peak_bytes)} on {where}{', file cache included' if memory.file_cache else ''}"


def _gpus(report: JobReport) -> Figure:
    gpus = report.gpus
    count = len(report.gpu_lines) if gpus.allocated is None else gpus.allocated
    models = ", ".join(sorted({line.name for line in report.gpu_lines if line.name}))
    held = f"{counted(count, 'GPU')}{f' ({models})' if models else ''}"
    peak = None if gpus.memory_peak_bytes is None else f"at most {size(gpus.memory_peak_bytes)} on one"
    unused = (
        f"{span(gpus.unused_seconds)} of {span(gpus.observed_seconds)} without a process of the job"
        if gpus.unused_seconds
        else None
    )
    seen = None if gpus.coverage_ratio is None else f"looked at for {share(gpus.coverage_ratio)} of the time"
    return Figure(
        label="GPUs busy", value=share(gpus.busy_ratio), ratio=gpus.busy_ratio, details=_said(held, peak, unused, seen)
    )


def _time(report: JobReport) -> Figure:
    time = report.time
    limit = "no time limit known" if time.limit_seconds is None else f"limit {span(time.limit_seconds)}"
    ran = f"{'ran' if report.is_over else 'running for'} {span(time.ran_seconds)}"
    waited = f"waited {span(time.waited_seconds)}" if time.waited_seconds else None
    suspended = f"suspended for {span(time.suspended_seconds)} of it" if time.suspended_seconds else None
    known = share(time.ratio) if time.ratio is not None else span(time.ran_seconds)
    details = _said(None if time.ran_seconds is None else ran, limit, suspended, waited)
    return Figure(label="Time", value=known, ratio=time.ratio, details=details)


def _io(report: JobReport) -> Figure:
    read, written = report.io.read_bytes, report.io.written_bytes
    if read is None and written is None:
        return Figure(label="Disk read, written", value=UNKNOWN)
    return Figure(
        label="Disk read, written",
        value=f"{size(read)}, {size(written)}",
        details=("local disks alone: what network file systems moved is not in it",),
    )


def _energy(energy: Energy) -> Figure:
    if energy.joules is None:
        return Figure(label="Energy", value=UNKNOWN)
    parts = ((energy.gpu_joules, "GPUs"), (energy.cpu_joules, "CPUs"), (energy.dram_joules, "memory"))
    split = ", ".join(f"{name} {joules(amount)}" for amount, name in parts if amount is not None)
    covered = "" if energy.coverage_ratio is None else f"measured over {share(energy.coverage_ratio)} of the run"
    method = f"method: {energy.method}" if energy.method else None
    return Figure(
        label="Energy", value=joules(energy.joules), details=_said(split, covered, method, "not of whole nodes")
    )  # fmt: skip


def _emissions(energy: Energy) -> Figure:
    if energy.emissions_grams is None:
        return Figure(label="Emissions", value=UNKNOWN, details=("no emission factor for all of that energy",))
    of = f", {energy.factor_year}" if energy.factor_year is not None else ""
    factor = (
        f"{energy.factor_grams_per_kwh:g} g/kWh ({energy.factor_source or 'source not named'}{of})"
        if energy.factor_grams_per_kwh is not None
        else energy.factor_source
    )
    pue = None if energy.pue is None else f"PUE {energy.pue:g}"
    return Figure(label="Emissions", value=f"{grams(energy.emissions_grams)} CO2e", details=_said(factor, pue))


def _coverage(report: JobReport) -> Figure:
    coverage = report.coverage
    samples = counted(coverage.samples, "sample")
    last = None if coverage.ratio is None else f"the last at {share(coverage.ratio)} of the run"
    total = coverage.nodes_total
    all_nodes = "an unknown number of nodes" if total is None else counted(total, "node")
    nodes = f"{coverage.nodes_reporting} of {all_nodes} told of {'its' if total == 1 else 'their'} usage"
    missing = ", ".join(f"{name} ({why})" for name, why in sorted(report.absent.items()) if why != UNLIMITED)
    known = share(coverage.ratio) if coverage.ratio is not None or report.is_over else "so far"
    absent = f"not measured: {missing}" if missing else None
    return Figure(label="Covered", value=known, ratio=coverage.ratio, details=_said(samples, last, nodes, absent))
