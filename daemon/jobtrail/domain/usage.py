"""Arithmetic of usage: folding readings into a node's usage, and nodes into a run's.

Counters only grow, so a node's reports merge by the larger value whatever their order. Over nodes, counters add up and
peaks take the largest; a value no node reported stays absent.
"""

from __future__ import annotations

import msgspec

from jobtrail.domain.emissions import MICROJOULES_PER_KWH, EmissionFactor
from jobtrail.domain.events import EmissionBasis, GpuUsage, NodeUsage
from jobtrail.domain.samples import NodeReading, Reading

ADDITIVE = (
    "cpu_usage_us", "cpu_user_us", "cpu_system_us", "cpu_throttled_us", "oom_kills", "io_read_bytes", "io_write_bytes",
    "covered_us", "gpu_observed_us", "gpu_busy_us", "gpu_unused_us", "energy_gpu_microjoules", "energy_cpu_microjoules",
    "energy_dram_microjoules", "energy_covered_us", "emissions_micrograms", "emissions_energy_microjoules",
)  # fmt: skip
PEAKS = ("memory_peak_bytes", "memory_limit_bytes", "processes_peak", "gpu_memory_peak_bytes")
SLURM_ACCOUNTING = "slurm_accounting"
LAST_SAMPLE = "last_sample"
PARENT_COUNTER = "parent_counter"
ENERGIES = ("energy_gpu_microjoules", "energy_cpu_microjoules", "energy_dram_microjoules")
_MILLION = 1_000_000
_MEASURED = tuple(name for name in ADDITIVE if name != "covered_us") + PEAKS
_GPU_VALUES = tuple(name for name in GpuUsage.__struct_fields__ if name not in {"gpu_id", "errors"})


def larger(one: int | None, other: int | None) -> int | None:
    """The larger of two values of which either may be absent."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


def smaller(one: int | None, other: int | None) -> int | None:
    """The smaller of two values of which either may be absent."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _still_absent(values: dict[str, int | None], *reports: dict[str, str]) -> dict[str, str]:
    """Reasons that still hold: those of values that remain unknown."""
    merged: dict[str, str] = {}
    for report in reports:
        for name, reason in report.items():
            if values.get(name) is None:
                merged[name] = min(reason, merged.get(name, reason))
    return merged


def merge_reports(one: NodeUsage | None, other: NodeUsage) -> NodeUsage:
    """Two reports of the same node's usage of the same run, in either order."""
    one = one or NodeUsage()
    values = {name: larger(getattr(one, name), getattr(other, name)) for name in (*ADDITIVE, *PEAKS)}
    merged = NodeUsage(
        sample_count=max(one.sample_count, other.sample_count),
        first_sample_us=smaller(one.first_sample_us, other.first_sample_us),
        last_sample_us=larger(one.last_sample_us, other.last_sample_us),
        last_alive_us=larger(one.last_alive_us, other.last_alive_us),
        sources=_union_of_sources(one.sources, other.sources),
        absent=_still_absent(values, one.absent, other.absent),
        emission_bases=_union_of_bases(one.emission_bases, other.emission_bases),
        gpus=merge_gpus(one.gpus, other.gpus),
    )
    return msgspec.structs.replace(merged, **values)


def merge_gpus(one: tuple[GpuUsage, ...], other: tuple[GpuUsage, ...]) -> tuple[GpuUsage, ...]:
    """Two reports of the same run's GPUs on the same node, in either order; sorted by gpu_id."""
    merged = {gpu.gpu_id: gpu for gpu in one}
    for gpu in other:
        held = merged.get(gpu.gpu_id)
        merged[gpu.gpu_id] = gpu if held is None else _merge_gpu(held, gpu)
    return tuple(merged[gpu_id] for gpu_id in sorted(merged))


def _merge_gpu(one: GpuUsage, other: GpuUsage) -> GpuUsage:
    """Numbers by the larger, words by the first in order, so that the order of the reports does not matter.

    How the energy came about is what the report says that covers more time: a later one may have become `mixed`.
    """
    values: dict[str, object] = {}
    for name in _GPU_VALUES:
        known = [value for value in (getattr(one, name), getattr(other, name)) if value is not None]
        values[name] = None if not known else min(known) if isinstance(known[0], str) else max(known)
    values["energy_method"] = max(one, other, key=_told_of_energy).energy_method
    codes = sorted({*one.errors, *other.errors})
    errors = {code: max(one.errors.get(code, 0), other.errors.get(code, 0)) for code in codes}
    return msgspec.structs.replace(one, **values, errors=errors)


def _told_of_energy(gpu: GpuUsage) -> tuple[int, str]:
    return gpu.energy_covered_us or 0, gpu.energy_method or ""


def replace_in_total(total: NodeUsage | None, old: NodeUsage | None, new: NodeUsage) -> NodeUsage:
    """A run's total after one node's usage went from `old` to `new`, which is nowhere smaller than `old`."""
    total = total or NodeUsage()
    before = old or NodeUsage()
    values: dict[str, int | None] = {}
    for name in ADDITIVE:
        grown, was = getattr(new, name), getattr(before, name) or 0
        so_far = getattr(total, name)
        values[name] = so_far if grown is None else (so_far or 0) + grown - was
    for name in PEAKS:
        values[name] = larger(getattr(total, name), getattr(new, name))
    sum_so_far = NodeUsage(
        sample_count=total.sample_count + new.sample_count - before.sample_count,
        first_sample_us=smaller(total.first_sample_us, new.first_sample_us),
        last_sample_us=larger(total.last_sample_us, new.last_sample_us),
        last_alive_us=larger(total.last_alive_us, new.last_alive_us),
        sources=_union_of_sources(total.sources, new.sources),
        absent=_still_absent(values, total.absent, new.absent),
        emission_bases=_union_of_bases(total.emission_bases, new.emission_bases),
    )
    return msgspec.structs.replace(sum_so_far, **values)


def _union_of_sources(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    names = sorted({*one, *other})
    return {name: ",".join(sorted({*_split(one.get(name)), *_split(other.get(name))})) for name in names}


def _split(sources: str | None) -> list[str]:
    return sources.split(",") if sources else []


def _union_of_bases(one: tuple[EmissionBasis, ...], other: tuple[EmissionBasis, ...]) -> tuple[EmissionBasis, ...]:
    return one if one == other else tuple(sorted({*one, *other}, key=_order))


def _order(basis: EmissionBasis) -> tuple[int, int, str, int]:
    return basis.micrograms_per_kwh, basis.pue_millionths, basis.source, basis.year or 0


def energy_microjoules(usage: NodeUsage) -> int | None:
    """The energy of the components that have a value, together; None where none has."""
    known = [value for name in ENERGIES if (value := getattr(usage, name)) is not None]
    return sum(known) if known else None


def with_emissions(usage: NodeUsage, factor: EmissionFactor | None, pue: float | None) -> NodeUsage:
    """A node's usage with the emissions of its energy; as it is when energy, factor or PUE is missing.

    Where `usage` already has emissions by another factor or PUE, as after a change of the configuration, only the
    energy used since is worked out with these.
    """
    energy = energy_microjoules(usage)
    if energy is None or factor is None or pue is None:
        return usage
    basis = EmissionBasis(
        micrograms_per_kwh=round(factor.grams_per_kwh * _MILLION),
        pue_millionths=round(pue * _MILLION),
        source=factor.source,
        year=factor.year,
    )
    micrograms, done = usage.emissions_micrograms or 0, usage.emissions_energy_microjoules or 0
    if usage.emission_bases in {(), (basis,)}:
        micrograms = done = 0
    return msgspec.structs.replace(
        usage,
        emissions_micrograms=micrograms + _micrograms(max(0, energy - done), basis),
        emissions_energy_microjoules=energy,
        emission_bases=_union_of_bases(usage.emission_bases, (basis,)),
    )


def _micrograms(microjoules: int, basis: EmissionBasis) -> int:
    """Rounded half up."""
    divisor = MICROJOULES_PER_KWH * _MILLION
    return (2 * microjoules * basis.micrograms_per_kwh * basis.pue_millionths + divisor) // (2 * divisor)


def observe(usage: NodeUsage, reading: Reading, started_us: int) -> NodeUsage:
    """A node's usage after one more reading of a run that started at `started_us`."""
    report = NodeUsage(
        cpu_usage_us=reading.cpu_usage_us,
        cpu_user_us=reading.cpu_user_us,
        cpu_system_us=reading.cpu_system_us,
        cpu_throttled_us=reading.cpu_throttled_us,
        # No memory now tells nothing about the peak: a process that has exited and is not yet reaped has none left.
        memory_peak_bytes=larger(reading.memory_peak_bytes, reading.memory_current_bytes or None),
        memory_limit_bytes=reading.memory_limit_bytes,
        oom_kills=reading.oom_kills,
        io_read_bytes=reading.io_read_bytes,
        io_write_bytes=reading.io_write_bytes,
        processes_peak=reading.processes,
        sample_count=usage.sample_count + 1,
        first_sample_us=reading.time_us,
        last_sample_us=reading.time_us,
        last_alive_us=None if reading.processes == 0 else reading.time_us,
        covered_us=max(0, reading.time_us - started_us),
        sources={"usage": reading.source},
        absent={name: reason for name, reason in reading.absent.items() if name in _MEASURED},
    )
    return merge_reports(usage, report)


def with_cpu_of_ended_job(usage: NodeUsage, cpu_usage_us: int, *, shared_by: int) -> NodeUsage:
    """Usage with the CPU time the parent's counter shows after the job's own counter was gone.

    `shared_by` is how many jobs share what the parent's counter grew by: the time is exact for one and an estimate for
    several; for none it is what was last read of the job, which may lack its last moments. `sources` tells them apart.
    """
    names = {0: LAST_SAMPLE, 1: PARENT_COUNTER}
    source = names.get(shared_by, f"{PARENT_COUNTER}_shared_by_{shared_by}")
    return msgspec.structs.replace(
        usage,
        cpu_usage_us=larger(usage.cpu_usage_us, cpu_usage_us),
        sources={**usage.sources, "cpu": source},
        absent={name: reason for name, reason in usage.absent.items() if name != "cpu_usage_us"},
    )


def is_estimated(usage: NodeUsage | None) -> bool:
    """Whether the CPU time is unknown, may lack the last moments, or rests on a share of what several jobs used."""
    if usage is None or usage.cpu_usage_us is None:
        return True
    source = usage.sources.get("cpu", "")
    return "shared_by" in source or LAST_SAMPLE in source


def _measured_cpu_us(usage: NodeUsage) -> int:
    """The CPU time that the job's own counters certainly showed; 0 where none did.

    Beside a share of what several jobs used these are the times in user and kernel mode, which are never shared out.
    """
    known = usage.cpu_usage_us or 0
    if "shared_by" not in usage.sources.get("cpu", ""):
        return known
    return min(known, (usage.cpu_user_us or 0) + (usage.cpu_system_us or 0))


def with_accounting(
    usage: NodeUsage | None, *, cpu_usage_us: int | None, memory_peak_bytes: int | None, complete: bool = False
) -> NodeUsage:
    """Usage completed by Slurm's own accounting, told as such in `sources`.

    CPU time that was taken from counters to the end, on every node (`complete`), and is no estimate, stays: accounting
    can be whole seconds too high, because it joins the seconds that slurmstepd polled with the microseconds that
    wait4(2) gave it at the end. Else its word is taken unless it is less than what was measured of the job, which it is
    where accounting polls (JobAcctGatherFrequency in slurm.conf(5)) and misses processes that nobody waited for. Memory
    takes the larger: accounting samples it, readings may miss the end. No CPU time at all is what accounting says where
    it gathers none (JobAcctGatherType=jobacct_gather/none in slurm.conf(5)): that takes no reading's place.
    """
    usage = usage or NodeUsage()
    cpu_us, peak, sources = usage.cpu_usage_us, usage.memory_peak_bytes, dict(usage.sources)
    told_us = None if cpu_usage_us == 0 and cpu_us is not None else cpu_usage_us
    counted = complete and cpu_us is not None and sources.get("cpu") == PARENT_COUNTER
    at_least_us = _measured_cpu_us(usage) if is_estimated(usage) else (cpu_us or 0) + 1
    if told_us is not None and not counted and told_us >= at_least_us:
        cpu_us, sources["cpu"] = told_us, SLURM_ACCOUNTING
    if memory_peak_bytes is not None and memory_peak_bytes > (peak or 0):
        peak, sources["memory_peak"] = memory_peak_bytes, SLURM_ACCOUNTING
    known = {"cpu_usage_us": cpu_us, "memory_peak_bytes": peak}
    absent = {name: reason for name, reason in usage.absent.items() if known.get(name) is None}
    return msgspec.structs.replace(usage, cpu_usage_us=cpu_us, memory_peak_bytes=peak, sources=sources, absent=absent)


def with_last_look(usage: NodeUsage, asked_by: str | None) -> NodeUsage:
    """Usage whose last sample was taken because `asked_by` asked for it; None is the sampler's own rhythm."""
    sources = {name: source for name, source in usage.sources.items() if name != "last_look"}
    if asked_by is not None:
        sources["last_look"] = asked_by
    return usage if sources == usage.sources else msgspec.structs.replace(usage, sources=sources)


def cpu_percent(earlier: Reading | None, later: Reading, cpus: int | None) -> float | None:
    """Per cent of the allocated CPUs used between two readings; None when it cannot be told.

    A counter that went backwards belongs to another life of the cgroup and gives None, never a negative rate.
    """
    if earlier is None or earlier.cpu_usage_us is None or later.cpu_usage_us is None or not cpus:
        return None
    used, passed = later.cpu_usage_us - earlier.cpu_usage_us, later.time_us - earlier.time_us
    if used < 0 or passed <= 0:
        return None
    return 100.0 * used / (passed * cpus)


def node_cpu_percent(earlier: NodeReading | None, later: NodeReading) -> float | None:
    """Per cent of all CPUs of the node busy between two readings; None when it cannot be told."""
    if earlier is None or None in (earlier.cpu_busy_us, earlier.cpu_total_us, later.cpu_busy_us, later.cpu_total_us):
        return None
    busy = (later.cpu_busy_us or 0) - (earlier.cpu_busy_us or 0)
    total = (later.cpu_total_us or 0) - (earlier.cpu_total_us or 0)
    if busy < 0 or total <= 0:
        return None
    return 100.0 * busy / total
