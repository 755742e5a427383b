"""Axes: round numbers for values of each kind, and round times along a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec

from jobtrail.domain.job_report_words import JOULES_PER_KWH, LEAST_KWH, joules, size

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
BINARY_STEPS = tuple(float(1 << power) for power in range(11))
MOST_TICKS = 5
_MOMENTS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800)


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How values of a kind are written, and where the axis has its marks. `least_top` is the least its top may be."""

    words: Callable[[float], str]
    least_top: float = 0.0
    binary: bool = False
    unit: float = 1.0  # ticks are round numbers of it

    def step(self, most: float) -> float:
        """From one tick to the next: a round number with at most five of them."""
        wanted = max(most, self.least_top, 1e-9) / (MOST_TICKS - 1) / self.unit
        base = 1024.0 if self.binary else 10.0
        size_of = base ** math.floor(math.log(wanted, base))
        steps = BINARY_STEPS if self.binary else STEPS
        fitting = (size_of * step for step in steps if size_of * step >= wanted * (1 - 1e-9))
        return next(fitting, size_of * base) * self.unit

    def top(self, most: float) -> float:
        """The axis' end: a round number at or above `most`."""
        step = self.step(most)
        return step * max(1, math.ceil(max(most, self.least_top) / step - 1e-9))

    def ticks(self, top: float) -> list[float]:
        """From 0 to the top."""
        count = round(top / self.step(top))
        return [top * number / count for number in range(count + 1)]


PERCENT = Scale(words=lambda value: f"{value:.0f} %", least_top=100.0)
BYTES = Scale(words=size, binary=True)
WATTS = Scale(words=lambda value: f"{value:.0f} W")


def energy(most: float) -> Scale:
    """Of joules up to `most`: in kilowatt-hours where they are told in these."""
    return Scale(words=lambda value: joules(value) if value else "0", unit=JOULES_PER_KWH if most >= LEAST_KWH else 1.0)


def moments(seconds: float) -> Iterator[tuple[float, str]]:
    """Round times from the begin of a run that lasts `seconds`, five or fewer, with their words."""
    fitting = (step for step in _MOMENTS if seconds / step <= MOST_TICKS)
    step = next(fitting, 86_400 * math.ceil(seconds / 86_400 / MOST_TICKS))
    at = 0.0
    while at <= seconds:
        yield at, _since(at, step)
        at += step


def _since(at: float, step: int) -> str:
    if step >= 86_400:
        return f"{at / 86_400:.0f} d"
    if step >= 3600:
        return f"{at / 3600:.0f} h"
    if step >= 60:
        hours, minutes = divmod(round(at / 60), 60)
        return f"{hours}:{minutes:02d} h" if hours else f"{minutes} min"
    return f"{at:.0f} s"
