"""Energy counters of CPU packages and their memory: RAPL by the kernel's powercap tree.

Documentation/power/powercap/powercap.rst and Documentation/ABI/testing/sysfs-class-powercap: a zone has `name`,
`energy_uj` (µJ, root only since Linux 5.10) and `max_energy_range_uj`, where `energy_uj` begins anew. AMD processors
appear in the same tree, under the same names (drivers/powercap/intel_rapl_msr.c).

Which zones count: `package-N` (with dies `package-N-die-M`) and `dram` under it, which is not part of the package's
figure on servers. Not `core` and `uncore`, which are part of the package; not `psys`, the whole platform, which has the
packages in it. The tree `intel-rapl-mmio` shows a package's counter a second time, through another register; it counts
only where the tree `intel-rapl` has no such package.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from jobtrail.domain.energy import EnergyCounter, EnergyReading

PACKAGE = "package"
DRAM = "dram"
NO_PACKAGE = "no RAPL package zone"
NO_DRAM = "no RAPL dram zone"
NOT_UNDERSTOOD = "not understood"

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_LARGEST = 2**63 - 1  # what a bigint column holds
_ZONE = re.compile(r"(intel-rapl|intel-rapl-mmio):(\d+)(?::(\d+))?", re.ASCII)
_PACKAGE_NAME = re.compile(r"package-\d+(-die-\d+)?", re.ASCII)


class _Zone(msgspec.Struct, frozen=True):
    """A zone that counts. `name` is the same on every node of a kind: `package-0`, `package-0/dram`."""

    component: str
    name: str
    path: str


def _wall_clock_us() -> int:
    return time.time_ns() // 1_000


def _reason(error: OSError) -> str:
    """`EACCES`, `ENODEV`, …: short, and the same on every node."""
    return "no such file" if error.errno == errno.ENOENT else errno.errorcode.get(error.errno or 0, "unknown error")


def _read(path: str) -> bytes:
    """A small file's content. Raises OSError."""
    fd = os.open(path, _OPEN)
    try:
        return os.pread(fd, 4_096, 0)
    finally:
        os.close(fd)


def _number(data: bytes) -> int | None:
    digits = data.strip()
    if digits.isdigit() and len(digits) < 20 and int(digits) <= _LARGEST:
        return int(digits)
    return None


class RaplEnergy:
    """EnergySource from sysfs. Blocking: some 20 µs per zone, and no descriptor stays open.

    Zones are looked for at each look: there are few, and a module may be loaded or a container given /sys later.
    """

    def __init__(self, root: Path = Path("/sys"), *, clock_us: Callable[[], int] = _wall_clock_us) -> None:
        self._powercap = str(root / "class" / "powercap")
        self._clock_us = clock_us

    def read_energy(self) -> EnergyReading:
        """One look at all counters. One that cannot be read is missing and named in `absent`; it does not raise.

        `absent` has the names of zones, and `package` or `dram` where there is no such zone at all.
        """
        time_us = self._clock_us()
        absent: dict[str, str] = {}
        try:
            zones = self._zones(absent)
        except OSError as error:
            reason = f"{self._powercap}: {_reason(error)}"
            return EnergyReading(time_us=time_us, absent={PACKAGE: reason, DRAM: reason})
        counters = [counter for zone in zones if (counter := _counter(zone, absent)) is not None]
        known = {zone.component for zone in zones}
        if PACKAGE not in known:
            absent.setdefault(PACKAGE, NO_PACKAGE)
        if DRAM not in known:
            absent.setdefault(DRAM, NO_DRAM)
        return EnergyReading(time_us=time_us, counters=tuple(counters), absent=absent)

    def _zones(self, absent: dict[str, str]) -> list[_Zone]:
        """The zones that count, by name; intel-rapl before intel-rapl-mmio. Raises OSError without a powercap tree."""
        with os.scandir(self._powercap) as entries:
            matches = [match for entry in entries if (match := _ZONE.fullmatch(entry.name))]
        matches.sort(key=lambda match: (match[1], int(match[2]), int(match[3] or -1)))
        names: dict[str, str] = {}
        zones: dict[str, _Zone] = {}
        for match in matches:
            own = self._name(match[0], absent)
            if own is None:
                continue
            names[match[0]] = own
            zone = self._zone(match, own, names)
            if zone is not None:
                zones.setdefault(zone.name, zone)
        return sorted(zones.values(), key=lambda zone: zone.name)

    def _zone(self, match: re.Match[str], own: str, names: dict[str, str]) -> _Zone | None:
        path = f"{self._powercap}/{match[0]}"
        if match[3] is None:
            return _Zone(PACKAGE, own, path) if _PACKAGE_NAME.fullmatch(own) else None
        package = names.get(f"{match[1]}:{match[2]}", "")
        if own == DRAM and _PACKAGE_NAME.fullmatch(package):
            return _Zone(DRAM, f"{package}/{DRAM}", path)
        return None

    def _name(self, zone: str, absent: dict[str, str]) -> str | None:
        """The name a zone gives itself; None, with the reason under the zone's directory, where it cannot be read."""
        try:
            return _read(f"{self._powercap}/{zone}/name").decode("ascii", "replace").strip()
        except OSError as error:
            absent[zone] = _reason(error)
            return None


def _counter(zone: _Zone, absent: dict[str, str]) -> EnergyCounter | None:
    try:
        value = _number(_read(f"{zone.path}/energy_uj"))
    except OSError as error:
        absent[zone.name] = _reason(error)
        return None
    if value is None:
        absent[zone.name] = NOT_UNDERSTOOD
        return None
    return EnergyCounter(
        component=zone.component, name=zone.name, microjoules=value, range_microjoules=_range(zone, value)
    )


def _range(zone: _Zone, value: int) -> int | None:
    """Where the counter begins anew; None where that is unknown or cannot be, so that no wrap is ever guessed."""
    try:
        largest = _number(_read(f"{zone.path}/max_energy_range_uj"))
    except OSError:
        return None
    return largest if largest and largest >= value else None
