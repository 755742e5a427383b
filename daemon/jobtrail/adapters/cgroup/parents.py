"""The CPU counter of all jobs of a node together, which keeps what ended jobs used."""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.adapters.cgroup.files import GONE_ERRORS, CounterSet, OpenFiles, Planned


class _Parent:
    def __init__(self, path: str, plan: Sequence[Planned], budget: OpenFiles) -> None:
        self._path = path
        self._plan = plan
        self._budget = budget
        self._counters: CounterSet | None = None
        self.offset_us = 0
        self.last_us: int | None = None
        self.gone = False

    def look(self) -> int | None:
        """The counter now; where it cannot be read, what it last gave."""
        value = self._read()
        if value is not None:
            if self.last_us is not None and value < self.last_us:
                self.offset_us += self.last_us  # the directory was made anew
            self.last_us = value
        return None if self.last_us is None else self.last_us + self.offset_us

    def _read(self) -> int | None:
        try:
            if self._counters is None or not self._counters.alive():
                self.close()
                self._counters = CounterSet(self._path, self._plan, self._budget)
        except OSError as error:
            self.gone = error.errno in GONE_ERRORS
            return None
        self.gone = False
        return self._counters.read_field("cpu_usage_us")

    def close(self) -> None:
        if self._counters is not None:
            self._counters.close()
            self._counters = None


class Parents:
    """The sum of the parents of a node's jobs: Slurm's, and that of local jobs where there are any.

    It grows only by what jobs below any of them use: a parent that joins later counts from the value it then has, and
    one that is removed keeps its last value as long as another lives. With one parent it is that parent's own counter.
    """

    def __init__(self, budget: OpenFiles) -> None:
        self._budget = budget
        self._parents: dict[str, _Parent] = {}

    def total_us(self, parents: dict[str, Sequence[Planned]]) -> int | None:
        """µs; `parents` are directories met now, with the file to read. None when no parent is there."""
        for path, plan in parents.items():
            if path not in self._parents:
                joined = _Parent(path, plan, self._budget)
                if self._parents:
                    joined.offset_us = -(joined.look() or 0)
                self._parents[path] = joined
        values = [parent.look() for parent in self._parents.values()]
        if all(parent.gone for parent in self._parents.values()):
            self.close()
            return None
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    def close(self) -> None:
        """Let all descriptors go and begin anew."""
        for parent in self._parents.values():
            parent.close()
        self._parents = {}
