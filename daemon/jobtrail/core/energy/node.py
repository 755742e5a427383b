"""Energy of the node's CPU packages and memory, divided among the runs by the CPU time they used meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from jobtrail.core.gpu.books import RunBooks, node_share_of
from jobtrail.core.ports import EnergySource, NodeSource
from jobtrail.domain.energy import PACKAGE_MOST_WATTS, EnergyReading, Limits, Span, node_span
from jobtrail.domain.energy_account import Share, cpu_share

PACKAGE, DRAM = "package", "dram"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is over: when it ended, and all the CPU time it used."""

    ended_us: int
    cpu_usage_us: int | None = None


class EnergyLook(msgspec.Struct, frozen=True, kw_only=True):
    """The node's energy counters, and who used its CPUs, read back to back."""

    reading: EnergyReading
    busy_us: int | None = None
    cpu_us: Mapping[str, int] = {}  # by ref


class _Since(msgspec.Struct, frozen=True, kw_only=True):
    """The last look that found a run's CPU time, and the time it found."""

    look: EnergyLook
    cpu_us: int
    unused: bool = False  # the run began after that look: before it, it had used nothing


class NodeEnergy:
    """Reads the counters of the node and divides what they grew by."""

    def __init__(self, source: EnergySource, node: NodeSource, *, interval_us: int) -> None:
        self._source = source
        self._node = node
        self._limits = Limits.of_interval(interval_us, most_watts=PACKAGE_MOST_WATTS)
        self._last: EnergyLook | None = None
        self._since: dict[str, _Since] = {}  # by ref

    @property
    def has_counters(self) -> bool:
        """Whether the last look found any."""
        return self._last is not None and bool(self._last.reading.counters)

    def read(self, cpu_times: Callable[[], Mapping[str, int]]) -> EnergyLook:
        """One look. Blocking; where there are no counters, CPU times are not read either."""
        reading = self._source.read_energy()
        if not reading.counters:
            return EnergyLook(reading=reading)
        return EnergyLook(reading=reading, busy_us=self._node.read_node().cpu_busy_us, cpu_us=cpu_times())

    def began(self, books: RunBooks) -> None:
        """A run began: if that was after the last look, all its CPU time belongs to what comes."""
        last, run = self._last, books.run
        if last is not None and not run.found and last.reading.time_us <= run.started_us:
            self._since[run.target.ref] = _Since(look=last, cpu_us=0, unused=True)

    def divide(self, look: EnergyLook, runs: Iterable[RunBooks], ended: Mapping[str, Ended]) -> None:
        """Give each run its part of what was used since the last look that found its CPU time.

        Not every look does: it may have failed, or the run was over and had not been asked about yet.
        """
        since, self._since, self._last = self._since, {}, look
        for books in runs:
            ref = books.run.target.ref
            end, before = ended.get(ref), since.get(ref)
            cpu_us = look.cpu_us.get(ref) if end is None else end.cpu_usage_us
            for component, name, book in ((PACKAGE, "cpu", books.cpu), (DRAM, "dram", books.dram)):
                _explain(books, f"energy_{name}_microjoules", look.reading, component)
                if before is not None and cpu_us is not None and look.busy_us is not None:
                    book.add(self._span(before, look, component, books), _share(before, look, cpu_us))
            if cpu_us is not None and look.busy_us is not None:
                self._since[ref] = _Since(look=look, cpu_us=cpu_us)
            elif before is not None:
                to_come = cpu_us is None and before.unused and books.ended_us is None  # its processes are
                self._since[ref] = msgspec.structs.replace(before, look=look) if to_come else before

    def _span(self, before: _Since, look: EnergyLook, component: str, books: RunBooks) -> Span | None:
        span = node_span(before.look.reading, look.reading, component, self._limits)
        return node_share_of(span, books.run.started_us, books.ended_us)


def _share(before: _Since, look: EnergyLook, cpu_us: int) -> Share | None:
    if before.look.busy_us is None or look.busy_us is None:
        return None
    return cpu_share(cpu_us - before.cpu_us, look.busy_us - before.look.busy_us)


def _explain(books: RunBooks, name: str, reading: EnergyReading, component: str) -> None:
    """Why there is no energy of a component, where the look says so."""
    if any(counter.component == component for counter in reading.counters):
        books.absent.pop(name, None)
        return
    wanted = [reason for key, reason in sorted(reading.absent.items()) if (DRAM in key) is (component == DRAM)]
    if wanted:
        books.absent[name] = wanted[0]
