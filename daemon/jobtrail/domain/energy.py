"""Energy: counters of a node's parts, and how much was used between two looks at them.

Two kinds of counters exist. One wraps: it begins anew at a known range, and a smaller value means that it did (RAPL).
The other resets: a smaller value means that the driver was loaded anew, and what lies between is unknown (NVML,
amdgpu). A time of which the energy is unknown is a gap. It is never filled, except from power readings at both of its
ends (trapezoid), and then the result says `integrated`.

All energy is in whole microjoules, and a delta of counters is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from jobtrail.domain.gpus import GpuReading

US_PER_SECOND = 1_000_000
# No CPU package draws more for long (the largest are sold with 500 W, with a GPU in it 760 W). It bounds how soon a
# counter can wrap unseen: 262 kJ, Intel's usual range, take 262 s at this power, and AMD's 65 kJ 65 s.
PACKAGE_MOST_WATTS = 1_000
# No GPU draws half as much (the largest boards are sold with 1,400 W). It refuses what is no energy.
GPU_MOST_WATTS = 5_000
GPU_COUNTER_STEP_US = 200_000  # NVIDIA's counter moves every 20 to 100 ms: a short time may have a whole step in it


class EnergyCounter(msgspec.Struct, frozen=True, kw_only=True):
    """A counter of used energy. It begins anew at `range_microjoules`, where the hardware says so."""

    component: str  # package | dram
    name: str  # such as package-0
    microjoules: int
    range_microjoules: int | None = None


class EnergyReading(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the counters of a node. A counter that could not be read is missing, with the reason in `absent`.

    Names are `package-0`, `package-0-die-1`, and `package-0/dram` for the memory of a package.
    """

    time_us: int
    counters: tuple[EnergyCounter, ...] = ()
    absent: Mapping[str, str] = {}


class Method(StrEnum):
    """How a number of joules came about."""

    COUNTER = "counter"  # the difference of a counter of hardware
    INTEGRATED = "integrated"  # power at both ends, times the time between
    APPORTIONED = "apportioned"  # a part of either, by a rule, because several used the same hardware
    MIXED = "mixed"  # several of these, one after the other or side by side


class Gap(StrEnum):
    """Why the energy of a time is not known."""

    TOO_LONG = "too_long"  # more time between two looks than one may speak for
    NO_VALUE = "no_value"  # neither a counter nor power was read at both ends
    RESET = "reset"  # the counter began anew, and there was no power to bridge it
    STANDS_STILL = "stands_still"  # the counter did not move for a second or more, which no powered part can do
    IMPLAUSIBLE = "implausible"  # more than the part can draw: a reset that looks like a wrap
    NO_SHARE = "no_share"  # the job's part of it cannot be told
    NOT_LOOKED = "not_looked"  # nobody looked, as before the first look at a job


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What two looks may speak for. A longer time between them is a gap.

    `most_watts` is what the part can draw at most, where that is known. It bounds how long a wrapping counter may be
    left alone, and refuses what cannot be.
    """

    counter_us: int  # between two values of a counter, which is exact but may hide that it began anew meanwhile
    integrate_us: int  # between two values of power, which says nothing of what came between
    most_watts: int | None = None

    @classmethod
    def of_interval(cls, interval_us: int, *, most_watts: int | None = None) -> Limits:
        """Three regular intervals: two looks in a row may be missed, a third may not."""
        return cls(counter_us=3 * interval_us, integrate_us=3 * interval_us, most_watts=most_watts)


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The time between two looks: the energy used in it, or why that is not known."""

    start_us: int
    end_us: int
    microjoules: int | None = None
    method: Method | None = None
    gap: Gap | None = None
    reset: bool = False  # the counter began anew in it


def wrapped_delta(earlier: int, later: int, range_microjoules: int | None) -> int | None:
    """What a wrapping counter grew by, if it wrapped at most once; None where it fell and its range is not known.

    The range is the largest value it shows, so a delta across a wrap lacks one step of the counter (61 µJ for RAPL).
    """
    if later >= earlier:
        return later - earlier
    if range_microjoules is None or range_microjoules < earlier:
        return None
    return range_microjoules - earlier + later


def grown_delta(earlier: int, later: int) -> int | None:
    """What a counter that resets grew by; None where it fell, because then it began anew."""
    return later - earlier if later >= earlier else None


def integrate(earlier_milliwatts: int, later_milliwatts: int, passed_us: int) -> int:
    """Microjoules under the straight line between two values of power; mW times µs are nJ, rounded half up."""
    return ((earlier_milliwatts + later_milliwatts) * passed_us + 1_000) // 2_000


def shortest_wrap_us(range_microjoules: int, most_watts: int) -> int:
    """The time in which a part at its highest power takes a counter through its whole range; µJ by W are µs."""
    return range_microjoules // most_watts


def node_span(earlier: EnergyReading, later: EnergyReading, component: str, limits: Limits) -> Span | None:
    """What all parts of one component (`package` or `dram`) used together; None when the looks are not in order.

    All parts that either look saw must be known at both: the energy of one of two packages is not the node's. None
    also where neither look saw any such part.
    """
    was, now = _counters(earlier, component), _counters(later, component)
    if later.time_us <= earlier.time_us or not (was or now):
        return None
    start_us, end_us = earlier.time_us, later.time_us
    if was.keys() != now.keys() or _lost(earlier, component) or _lost(later, component):
        return Span(start_us=start_us, end_us=end_us, gap=Gap.NO_VALUE)
    total = 0
    for name, counter in now.items():
        delta = _package_delta(was[name], counter, end_us - start_us, limits)
        if isinstance(delta, Gap):
            return Span(start_us=start_us, end_us=end_us, gap=delta, reset=delta is Gap.RESET)
        total += delta
    return Span(start_us=start_us, end_us=end_us, microjoules=total, method=Method.COUNTER)


def _counters(reading: EnergyReading, component: str) -> dict[str, EnergyCounter]:
    return {counter.name: counter for counter in reading.counters if counter.component == component}


def _lost(reading: EnergyReading, component: str) -> bool:
    """Whether a part of the component is there and could not be read."""
    if component == "dram":
        return any(name.endswith("/dram") for name in reading.absent)
    return any(name.startswith(f"{component}-") and "/" not in name for name in reading.absent)


def _package_delta(earlier: EnergyCounter, later: EnergyCounter, passed_us: int, limits: Limits) -> int | Gap:
    if passed_us > limits.counter_us or _may_wrap_twice(later, passed_us, limits):
        return Gap.TOO_LONG
    delta = wrapped_delta(earlier.microjoules, later.microjoules, later.range_microjoules)
    return Gap.RESET if delta is None else _checked(delta, passed_us, limits)


def _may_wrap_twice(counter: EnergyCounter, passed_us: int, limits: Limits) -> bool:
    if counter.range_microjoules is None or limits.most_watts is None:
        return False
    return passed_us >= shortest_wrap_us(counter.range_microjoules, limits.most_watts)


def _checked(delta: int, passed_us: int, limits: Limits) -> int | Gap:
    """`delta` if it can be: a reset can look like a wrap."""
    if limits.most_watts is not None and delta > limits.most_watts * passed_us:
        return Gap.IMPLAUSIBLE
    return _moving(delta, passed_us)


def _moving(delta: int, passed_us: int) -> int | Gap:
    """`delta` unless the counter stands still, as virtual machines show them."""
    return Gap.STANDS_STILL if delta == 0 and passed_us >= US_PER_SECOND else delta


def gpu_span(earlier: GpuReading, later: GpuReading, limits: Limits) -> Span | None:
    """What a GPU used between two looks at it; None when they are not in order, or of two GPUs.

    By its counter where that grew, else by power at both ends.
    """
    if later.time_us <= earlier.time_us or later.gpu.gpu_id != earlier.gpu.gpu_id:
        return None
    start_us, end_us = earlier.time_us, later.time_us
    counted = _counted(earlier.energy_microjoules, later.energy_microjoules, end_us - start_us, limits)
    if not isinstance(counted, Gap):
        return Span(start_us=start_us, end_us=end_us, microjoules=counted, method=Method.COUNTER)
    reset = counted is Gap.RESET
    before, after = _drawn(earlier, limits), _drawn(later, limits)
    if before is None or after is None:
        return Span(start_us=start_us, end_us=end_us, gap=counted, reset=reset)
    if end_us - start_us > limits.integrate_us:
        return Span(start_us=start_us, end_us=end_us, gap=Gap.TOO_LONG, reset=reset)
    energy = integrate(before, after, end_us - start_us)
    return Span(start_us=start_us, end_us=end_us, microjoules=energy, method=Method.INTEGRATED, reset=reset)


def _drawn(reading: GpuReading, limits: Limits) -> int | None:
    """Its power, if that can be."""
    power, most = reading.power_milliwatts, limits.most_watts
    return None if power is None or (most is not None and power > most * 1_000) else power


def _counted(earlier: int | None, later: int | None, passed_us: int, limits: Limits) -> int | Gap:
    if earlier is None or later is None:
        return Gap.NO_VALUE
    delta = grown_delta(earlier, later)
    if delta is None:
        return Gap.RESET
    if passed_us > limits.counter_us:
        return Gap.TOO_LONG
    if limits.most_watts is not None and delta > limits.most_watts * (passed_us + GPU_COUNTER_STEP_US):
        return Gap.IMPLAUSIBLE
    return _moving(delta, passed_us)
