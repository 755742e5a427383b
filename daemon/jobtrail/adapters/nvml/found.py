"""What one look at one GPU has found. Runs in the child."""

from __future__ import annotations

from typing import Any

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.calls import LASTING

# More than these, a driver says -1 or has written nothing: no GPU is hotter, and no column of a database holds more.
# (Means of hardware counters may lie a rounding above 100.)
_LARGEST = 2**63 - 1
_MOST = dict.fromkeys(("utilization_percent", "memory_utilization_percent"), 101) | dict.fromkeys(
    ("temperature_celsius", "memory_temperature_celsius"), 255
)


class GpuLost(Exception):
    """The GPU fell off the bus or waits for a reset: nothing more can be read of it."""


class Found:
    """Values of one look, and why others are absent. `lasting` are the absences of earlier looks that stay."""

    def __init__(self, lasting: dict[str, str]) -> None:
        self.values: dict[str, Any] = {}
        self.absent = dict(lasting)
        self._lasting = lasting

    def has(self, value: str, number: Any) -> None:
        """`value` is `number`, unless that cannot be."""
        if isinstance(number, int | float) and not -_LARGEST <= number <= _MOST.get(value, _LARGEST):
            self.lacks(value, words.UNKNOWN)
            return
        self.values[value] = number
        self.absent.pop(value, None)
        self._lasting.pop(value, None)

    def lacks(self, value: str, reason: str) -> None:
        """`value` is absent because of `reason`, unless it was found another way. Raises GpuLost where that is why."""
        if reason == words.LOST:
            raise GpuLost
        if value in self.values:
            return
        self.absent[value] = reason
        if reason in LASTING:
            self._lasting[value] = reason
