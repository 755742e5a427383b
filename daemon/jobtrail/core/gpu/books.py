"""The books of one run: what it had of each GPU, its share of the CPUs' energy, and what that adds up to.

They begin with what a checkpoint held, so that a restarted daemon counts on; the time between is in none of them.
Every number only grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from jobtrail.core.ports import OpenRun
from jobtrail.domain.emissions import EmissionFactor
from jobtrail.domain.energy import Limits, Method, Span, gpu_span
from jobtrail.domain.energy_account import ComponentEnergy, Share, board_share, with_span
from jobtrail.domain.events import GpuUsage, NodeUsage
from jobtrail.domain.gpu_allocation import GpuAllocation, UnresolvedGpu
from jobtrail.domain.gpus import Gpu, GpuReading
from jobtrail.domain.usage import larger, merge_gpus, merge_reports, with_emissions

UNRESOLVED = "unresolved:"
MAX_EVIDENCE = 300  # characters
_LASTING = ("not_supported", "no_permission")  # how such a reason begins, whoever reads the GPU
ERROR_CODES = 64  # different ones that are kept of a GPU


class EmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What emissions are worked out with; without a factor there are none."""

    factor: EmissionFactor | None = None
    pue: float = 1.0


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a GPU that a run holds."""

    reading: GpuReading
    board: GpuReading | None = None  # of an instance: the whole it is part of
    holders: int = 1  # runs that had it in the time since the look before
    active: bool | None = None  # whether a process of the run is on it; None where that cannot be told


class EnergyBook:
    """Energy of one part of the hardware, or of one component, that is a run's."""

    def __init__(self, microjoules: int | None, covered_us: int | None, method: str | None) -> None:
        self._sum: ComponentEnergy | None = None
        if microjoules is not None:
            covered = {str(Method(method or Method.MIXED)): covered_us or 0}
            self._sum = ComponentEnergy(microjoules=microjoules, covered_us_by=covered)
        self._has_value = microjoules is not None

    def add(self, span: Span | None, share: Share | None) -> None:
        """One more span; None where there was no look before that it could begin with."""
        if span is None:
            return
        self._sum = with_span(self._sum, span, share)
        if span.microjoules is not None and share is not None:
            self._has_value = True

    @property
    def microjoules(self) -> int | None:
        """None where nothing is known."""
        return self._sum.microjoules if self._sum is not None and self._has_value else None

    @property
    def covered_us(self) -> int | None:
        """The time the energy speaks for."""
        return self._sum.covered_us if self._sum is not None and self._has_value else None

    @property
    def method(self) -> str | None:
        """How the energy came about."""
        if self._sum is None or not self._has_value:
            return None
        return str(self._sum.method or Method.MIXED)


class GpuBook:
    """What a run had of one GPU."""

    def __init__(self, before: GpuUsage) -> None:
        self._usage = before
        self.energy = EnergyBook(before.energy_microjoules, before.energy_covered_us, before.energy_method)
        self._last: Held | None = None

    def describe(self, gpu: Gpu, resolved_by: str) -> None:
        """What the GPU is, and how it was found."""
        self._usage = msgspec.structs.replace(
            self._usage,
            vendor=gpu.vendor,
            minor=gpu.minor,
            name=gpu.name,
            memory_total_bytes=gpu.memory_total_bytes,
            resolved_by=resolved_by,
        )

    def note_mismatch(self, evidence: str) -> None:
        """Keep the first evidence of a disagreement."""
        if self._usage.mismatch is None:
            self._usage = msgspec.structs.replace(self._usage, mismatch=evidence[:MAX_EVIDENCE])

    def look(self, held: Held, limits: Limits, *, ended_us: int | None) -> None:
        """One look; what came after the run's end is not counted as its time."""
        last, self._last = self._last, held
        usage, reading = self._usage, held.reading
        self._usage = msgspec.structs.replace(
            usage, memory_peak_bytes=larger(usage.memory_peak_bytes, reading.memory_used_bytes)
        )
        if last is None:
            return  # what the driver told since the look before may be of the run before
        self._note_errors(held)
        passed_us = _end(reading.time_us, ended_us) - last.reading.time_us
        if 0 < passed_us <= limits.counter_us:
            self._count(last, held, passed_us)
        self._add_energy(last, held, limits, ended_us)

    def _note_errors(self, held: Held) -> None:
        """Those of the board are of its instances too: one that fell off the bus takes them all along."""
        errors = dict(self._usage.errors)
        for event in (*held.reading.events, *(() if held.board is None else held.board.events)):
            if str(event.code) in errors or len(errors) < ERROR_CODES:
                errors[str(event.code)] = errors.get(str(event.code), 0) + 1
        self._usage = msgspec.structs.replace(self._usage, errors=errors)

    def _count(self, last: Held, held: Held, passed_us: int) -> None:
        usage = self._usage
        both = (last.reading.utilization_percent, held.reading.utilization_percent)
        observed_us, busy_us, unused_us = usage.observed_us, usage.busy_us, usage.unused_us
        if both[0] is not None and both[1] is not None:
            # The straight line between two looks, as with power. Busy is of all that was observed, or unknown.
            if observed_us is None or busy_us is not None:
                busy_us = (busy_us or 0) + round((both[0] + both[1]) / 200 * passed_us)
        elif busy_us is not None or not (_never_told(last.reading) and _never_told(held.reading)):
            return
        observed_us = (observed_us or 0) + passed_us
        if last.active is not None and held.active is not None:
            idle = not (last.active or held.active)
            unused_us = (unused_us or 0) + (passed_us if idle else 0)
        self._usage = msgspec.structs.replace(usage, observed_us=observed_us, busy_us=busy_us, unused_us=unused_us)

    def _add_energy(self, last: Held, held: Held, limits: Limits, ended_us: int | None) -> None:
        gpu = held.reading.gpu
        if gpu.parent_gpu_id is None:
            span = gpu_span(last.reading, held.reading, limits)
            share = board_share(None, max(1, held.holders))
        else:  # the counter is of the whole board
            span = None if last.board is None or held.board is None else gpu_span(last.board, held.board, limits)
            part = gpu.share_of_parent
            share = None if part is None else board_share(part, max(1, held.holders))
        self.energy.add(_cut(span, ended_us), share)

    @property
    def has_begun(self) -> bool:
        """Whether it was looked at before: from then on its energy is the run's."""
        return self._last is not None

    @property
    def usage(self) -> GpuUsage:
        """What is known so far."""
        return msgspec.structs.replace(
            self._usage,
            energy_microjoules=self.energy.microjoules,
            energy_covered_us=self.energy.covered_us,
            energy_method=self.energy.method,
        )


class RunBooks:
    """Everything about one run. `allocation` is None until its GPUs have been looked for."""

    def __init__(self, run: OpenRun) -> None:
        before = run.usage or NodeUsage()
        self.run = run
        self.allocation: GpuAllocation | None = None
        self.ended_us: int | None = None  # when it was over, as soon as that is known
        self.cpu = EnergyBook(before.energy_cpu_microjoules, before.energy_covered_us, Method.APPORTIONED)
        self.dram = EnergyBook(before.energy_dram_microjoules, before.energy_covered_us, Method.APPORTIONED)
        self.row_at = -math.inf  # monotonic seconds: its last energy sample
        self.absent: dict[str, str] = {}  # names of values of NodeUsage -> why there is none
        self._gpus = {gpu.gpu_id: GpuBook(gpu) for gpu in before.gpus}
        self._covered_us = before.energy_covered_us

    def gpu(self, gpu_id: str) -> GpuBook:
        """The book of one GPU, begun if there is none."""
        return self._gpus.setdefault(gpu_id, GpuBook(GpuUsage(gpu_id=gpu_id)))

    def has_begun(self, *gpu_ids: str | None) -> bool:
        """Whether the run had any of these GPUs at an earlier look."""
        return any(gpu_id in self._gpus and self._gpus[gpu_id].has_begun for gpu_id in gpu_ids if gpu_id is not None)

    def gpu_energies(self) -> dict[str, EnergyBook]:
        """The energy of each GPU it has a book of."""
        return {gpu_id: book.energy for gpu_id, book in self._gpus.items()}

    @property
    def covered_us(self) -> int | None:
        """The time for which every component that has a value was measured: the least that any of them covers."""
        parts = [book.energy for book in self._gpus.values()]
        covered = [part.covered_us for part in (*parts, self.cpu, self.dram) if part.covered_us is not None]
        if covered:  # it only grows, also where a component comes late
            self._covered_us = max(self._covered_us or 0, min(covered))
        return self._covered_us

    def usage(self, known: NodeUsage, emissions: EmissionSettings, *, final: bool = False) -> NodeUsage:
        """The run's usage with what these books hold. Only the final one names GPUs that were never found: a later one
        could not take them back.
        """
        gpus = merge_gpus((), tuple(book.usage for book in self._gpus.values()))
        if final and self.allocation is not None:
            gpus = merge_gpus(gpus, tuple(map(_unresolved, self.allocation.unresolved)))
        report = NodeUsage(
            gpu_observed_us=_total(gpu.observed_us for gpu in gpus),
            gpu_busy_us=_busy_us(gpus),
            gpu_unused_us=_total(gpu.unused_us for gpu in gpus),
            gpu_memory_peak_bytes=_largest(gpu.memory_peak_bytes for gpu in gpus),
            energy_gpu_microjoules=_total(gpu.energy_microjoules for gpu in gpus),
            energy_cpu_microjoules=self.cpu.microjoules,
            energy_dram_microjoules=self.dram.microjoules,
            energy_covered_us=self.covered_us,
            gpus=gpus,
            sources=_sources(gpus, self.cpu, self.dram),
            absent=self.absent,
        )
        # The GPUs of a checkpoint are in these books already.
        known = msgspec.structs.replace(known, gpus=())
        return with_emissions(merge_reports(known, report), emissions.factor, emissions.pue)


def _never_told(reading: GpuReading) -> bool:
    """Whether the GPU does not tell its utilisation at all, as instances do not; not only for the moment."""
    return reading.absent.get("utilization_percent", "").startswith(_LASTING)


def _unresolved(gpu: UnresolvedGpu) -> GpuUsage:
    return GpuUsage(gpu_id=f"{UNRESOLVED}{gpu.asked}"[:MAX_EVIDENCE])


def _sources(gpus: Iterable[GpuUsage], cpu: EnergyBook, dram: EnergyBook) -> dict[str, str]:
    """How the energy of each component came about."""
    of_gpus = ",".join(sorted({gpu.energy_method for gpu in gpus if gpu.energy_method is not None}))
    methods = {"energy_gpu": of_gpus, "energy_cpu": cpu.method, "energy_dram": dram.method}
    return {name: method for name, method in methods.items() if method}


def _total(values: Iterable[int | None]) -> int | None:
    """The sum of the values there are; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _busy_us(gpus: Iterable[GpuUsage]) -> int | None:
    """Of all that was observed, or unknown: instances do not tell it, and their time is among the observed."""
    seen = [gpu.busy_us for gpu in gpus if gpu.observed_us is not None]
    return None if None in seen else _total(seen)


def _largest(values: Iterable[int | None]) -> int | None:
    """The largest of the values there are, which may be 0; None where there is none."""
    return max((value for value in values if value is not None), default=None)


def _end(time_us: int, ended_us: int | None) -> int:
    return time_us if ended_us is None else min(time_us, ended_us)


def _cut(span: Span | None, ended_us: int | None) -> Span | None:
    """A span that ends with the run. Its energy stays: of what was used after the end it holds milliseconds."""
    if span is None or ended_us is None or ended_us >= span.end_us:
        return span
    return None if ended_us <= span.start_us else msgspec.structs.replace(span, end_us=ended_us)


def node_share_of(span: Span | None, began_us: int, ended_us: int | None) -> Span | None:
    """The part of a node's span in which a run was there; its energy is that of the whole span."""
    if span is None or began_us >= span.end_us:
        return None
    return _cut(msgspec.structs.replace(span, start_us=max(span.start_us, began_us)), ended_us)
