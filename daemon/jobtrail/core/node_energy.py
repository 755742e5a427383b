"""Energy of the node's CPU packages and memory, divided among the runs by the CPU time they used meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from jobtrail.core.gpu_books import EnergyBook, RunBooks, node_share_of
from jobtrail.core.ports import EnergySource, NodeSource
from jobtrail.domain.energy import PACKAGE_MOST_WATTS, EnergyReading, Limits, node_span
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


class NodeEnergy:
    """Reads the counters of the node and divides what they grew by."""

    def __init__(self, source: EnergySource, node: NodeSource, *, interval_us: int) -> None:
        self._source = source
        self._node = node
        self._limits = Limits.of_interval(interval_us, most_watts=PACKAGE_MOST_WATTS)
        self._last: EnergyLook | None = None

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
        books.cpu_is_new = last is not None and not run.found and last.reading.time_us <= run.started_us

    def divide(self, look: EnergyLook, runs: Iterable[RunBooks], ended: Mapping[str, Ended]) -> None:
        """Give each run its part of what was used since the look before."""
        last, self._last = self._last, look
        for books in runs:
            end = ended.get(books.run.target.ref)
            share = self._share(last, look, books, end)
            for component, name, book in ((PACKAGE, "cpu", books.cpu), (DRAM, "dram", books.dram)):
                _explain(books, f"energy_{name}_microjoules", look.reading, component)
                if last is not None:
                    self._add(book, last, look, component, books, end, share)

    def _add(
        self,
        book: EnergyBook,
        last: EnergyLook,
        look: EnergyLook,
        component: str,
        books: RunBooks,
        end: Ended | None,
        share: Share | None,
    ) -> None:
        span = node_span(last.reading, look.reading, component, self._limits)
        book.add(node_share_of(span, books.run.started_us, None if end is None else end.ended_us), share)

    def _share(self, last: EnergyLook | None, look: EnergyLook, books: RunBooks, end: Ended | None) -> Share | None:
        now_us = look.cpu_us.get(books.run.target.ref) if end is None else end.cpu_usage_us
        if now_us is None and books.cpu_is_new:
            return None  # its processes are still to come
        before_us = 0 if books.cpu_is_new else books.cpu_last_us
        books.cpu_last_us, books.cpu_is_new = now_us, False
        if last is None or None in (now_us, before_us, look.busy_us, last.busy_us):
            return None
        return cpu_share((now_us or 0) - (before_us or 0), (look.busy_us or 0) - (last.busy_us or 0))


def _explain(books: RunBooks, name: str, reading: EnergyReading, component: str) -> None:
    """Why there is no energy of a component, where the look says so."""
    if any(counter.component == component for counter in reading.counters):
        books.absent.pop(name, None)
        return
    wanted = [reason for key, reason in sorted(reading.absent.items()) if (DRAM in key) is (component == DRAM)]
    if wanted:
        books.absent[name] = wanted[0]
