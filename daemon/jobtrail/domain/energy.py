"""Energy: counters of a node's parts, and what follows from them for jobs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class EnergyCounter(msgspec.Struct, frozen=True, kw_only=True):
    """A counter of used energy. It begins anew at `range_microjoules`, where the hardware says so."""

    component: str  # package | dram
    name: str  # such as package-0
    microjoules: int
    range_microjoules: int | None = None


class EnergyReading(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the counters of a node. A counter that could not be read is missing, with the reason in `absent`."""

    time_us: int
    counters: tuple[EnergyCounter, ...] = ()
    absent: Mapping[str, str] = {}
