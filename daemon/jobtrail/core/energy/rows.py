"""Writes down what open runs had used at each look, so that the energy of any part of a run can be told later."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from jobtrail.core.gpu.books import EmissionSettings, EnergyBook, RunBooks
from jobtrail.core.gpu.ports import EnergySampleRow
from jobtrail.domain.benchmarks.settling import EnergySample
from jobtrail.domain.energy import EnergyReading, Method
from jobtrail.domain.gpu_use import GpuUse
from jobtrail.domain.gpus import GpuReading

AddEnergyRow = Callable[[EnergySampleRow], None]


def nobody_uses(_ref: str) -> Mapping[str, GpuUse]:
    """What a look that asked no GPU tells of who uses them."""
    return {}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one look saw. `asked_gpus` is false for one at the node's own counters alone."""

    now: float  # monotonic seconds
    asked_gpus: bool = True
    readings: Mapping[str, GpuReading] = {}
    uses: Callable[[str], Mapping[str, GpuUse]] = nobody_uses  # of each GPU, as far as it concerns a run, by ref
    energy: EnergyReading | None = None


class EnergyRows:
    """Makes a row for each run of which any energy is known.

    A component that this look did not read has no number in the row: its sum so far is of an earlier moment, and taken
    for one of this moment, it would move energy from one part of the run to another.
    """

    def __init__(self, add_row: AddEnergyRow, *, spacing_seconds: float, emissions: EmissionSettings) -> None:
        self._add_row = add_row
        self._spacing = spacing_seconds
        self._emissions = emissions

    def write(self, seen: Seen, runs: Mapping[str, RunBooks], *, over: Collection[str], asked: Collection[str]) -> None:
        """Rows of one run lie `spacing_seconds` apart at least, because runs of others that begin and end cause looks
        as well; those `over`, or `asked` for, by ref, have one now.
        """
        for ref, books in runs.items():
            wanted = ref in over or ref in asked
            if wanted or (seen.now - books.row_at >= self._spacing and (seen.asked_gpus or not _with_energy(books))):
                self._write(seen, books)

    def _write(self, seen: Seen, books: RunBooks) -> None:
        gpus = _with_energy(books)
        if not seen.readings.keys() >= gpus.keys():
            gpus = {}
        times = [seen.readings[gpu_id].time_us for gpu_id in gpus]
        of_node: list[EnergyBook] = []
        if seen.energy is not None:
            times, of_node = times or [seen.energy.time_us], [books.cpu, books.dram]
        covered = [book.covered_us for book in (*gpus.values(), *of_node) if book.covered_us is not None]
        if not covered:
            return
        books.row_at = seen.now
        sample = EnergySample(
            node=books.run.target.node,
            time_us=max(times),  # also of a run that is over: its sums hold what it had until it was looked at
            gpu_microjoules=sum(book.microjoules or 0 for book in gpus.values()) if gpus else None,
            cpu_microjoules=books.cpu.microjoules if of_node else None,
            dram_microjoules=books.dram.microjoules if of_node else None,
            covered_us=min(covered),
            gpu_method=_method(gpus.values()),
        )
        self._add_row(_row(seen, books, sample, self._emissions))


def _row(seen: Seen, books: RunBooks, sample: EnergySample, emissions: EmissionSettings) -> EnergySampleRow:
    target, allocation = books.run.target, books.allocation
    held = None if allocation is None or not allocation.complete else allocation.gpu_ids
    shared: tuple[str, ...] | None = None
    boards: list[str | None] = []
    uses = seen.uses(target.ref)
    if held is not None and uses.keys() >= set(held):
        shared = tuple(gpu_id for gpu_id in held if uses[gpu_id].shared)
        boards = [seen.readings[gpu_id].gpu.parent_gpu_id for gpu_id in held]
    return EnergySampleRow(
        cluster=target.cluster,
        job_id=target.job_id,
        ref=target.ref,
        sample=sample,
        gpu_ids=held,
        shared_gpu_ids=shared,
        board_ids=tuple(sorted({board for board in boards if board is not None})),
        factor=emissions.factor,
        pue=None if emissions.factor is None else emissions.pue,
    )


def _with_energy(books: RunBooks) -> dict[str, EnergyBook]:
    """The run's GPUs of which any energy is known."""
    return {gpu_id: book for gpu_id, book in books.gpu_energies().items() if book.microjoules is not None}


def _method(gpus: Iterable[EnergyBook]) -> str | None:
    methods = {book.method for book in gpus}
    return methods.pop() if len(methods) == 1 else str(Method.MIXED) if methods else None
