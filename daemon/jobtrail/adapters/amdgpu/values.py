"""One look at one card: Documentation/gpu/amdgpu/thermal.rst (hwmon, busy percents), driver-misc.rst and ras.rst.

Not read: `pcie_bw`, for which the driver counts for a second; and anything of a card that sleeps (runtime power
management), because that would wake it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jobtrail.adapters.amdgpu.cards import Card
from jobtrail.adapters.amdgpu.files import (
    NO_SUCH_FILE,
    NOT_UNDERSTOOD,
    count,
    names,
    read,
    reason_of,
    text,
    whole,
    worded,
)
from jobtrail.adapters.amdgpu.metrics import energy_microjoules
from jobtrail.domain.gpus import GpuProcess, GpuReading

NO_SENSORS = "no sensors of amdgpu"
ASLEEP = "the card is asleep"
_NOT_TOLD = "amdgpu does not tell it"
_NEVER = {
    "throttle_reasons": _NOT_TOLD,
    "pcie_receive_bytes_per_second": "reading it takes the driver a second",
    "pcie_transmit_bytes_per_second": "reading it takes the driver a second",
    "nvlink_receive_bytes": _NOT_TOLD,
    "nvlink_transmit_bytes": _NOT_TOLD,
    "remapped_rows_corrected": _NOT_TOLD,
    "remapped_rows_uncorrected": _NOT_TOLD,
    "remapped_rows_pending": _NOT_TOLD,
    "sm_active_percent": _NOT_TOLD,
    "sm_occupancy_percent": _NOT_TOLD,
    "tensor_active_percent": _NOT_TOLD,
    "fp64_active_percent": _NOT_TOLD,
    "fp32_active_percent": _NOT_TOLD,
    "fp16_active_percent": _NOT_TOLD,
    "dram_active_percent": _NOT_TOLD,
}
_READ = (
    "utilization_percent", "memory_utilization_percent", "memory_used_bytes", "power_milliwatts",
    "power_limit_milliwatts", "energy_microjoules", "temperature_celsius", "memory_temperature_celsius",
    "sm_clock_hertz", "memory_clock_hertz", "ecc_corrected", "ecc_uncorrected", "processes",
)  # fmt: skip
_MOST_CHANNELS = 3  # of temperature; of clocks there are two (amdgpu_pm.c)


class _Look:
    """Collects values of one card, and reasons for those it has not."""

    def __init__(self, card: Card) -> None:
        self.device = card.device
        self.hwmon = card.hwmon
        self.values: dict[str, Any] = {}
        self.absent: dict[str, str] = dict(_NEVER)

    def number(self, path: str, parse: Callable[[bytes], int | None] = count) -> int | str:
        """The number in a file, or the reason why there is none."""
        try:
            value = parse(read(path))
        except OSError as error:
            return reason_of(error)
        return NOT_UNDERSTOOD if value is None else value

    def keep(self, field: str, value: float | str) -> None:
        """Take a number as the value, and words as the reason for none."""
        if isinstance(value, str):
            self.absent[field] = value
        else:
            self.values[field] = value

    def first(self, field: str, *values: float | str) -> None:
        """The first number, else the reason of the last."""
        self.keep(field, next((value for value in values if not isinstance(value, str)), values[-1]))

    def sensor(self, name: str, parse: Callable[[bytes], int | None] = count) -> int | str:
        """A number of the card's hwmon directory."""
        return NO_SENSORS if self.hwmon is None else self.number(f"{self.hwmon}/{name}", parse)

    def channel(self, kind: str, *labels: str) -> str:
        """The name of the channel that has one of these labels, the first label first; a name of none when none has."""
        by_label = {text(f"{self.hwmon}/{kind}{at}_label"): f"{kind}{at}_input" for at in range(1, _MOST_CHANNELS + 1)}
        return next((by_label[label] for label in labels if label in by_label), f"{kind}_{labels[0]}_input")


def read_card(card: Card, processes: tuple[GpuProcess, ...] | str, time_us: int) -> GpuReading:
    """One look at a card. `processes` are those that use it, or the reason why they are not known."""
    if text(f"{card.device}/power/runtime_status") in {"suspended", "suspending"}:
        return unread(card, ASLEEP, time_us)
    look = _Look(card)
    for field, name in (
        ("utilization_percent", "gpu_busy_percent"),
        ("memory_utilization_percent", "mem_busy_percent"),
    ):
        look.keep(field, _percent(look.number(f"{card.device}/{name}")))
    look.keep("memory_used_bytes", look.number(f"{card.device}/mem_info_vram_used"))
    _add_power(look)
    _add_temperatures(look)
    _add_clocks(look)
    _add_errors(look)
    if isinstance(processes, str):
        look.absent["processes"] = processes
    else:
        look.values["processes"] = processes
    absent = {name: worded(reason) for name, reason in look.absent.items()}
    return GpuReading(gpu=card.gpu, time_us=time_us, absent=absent, **look.values)


def unread(card: Card, reason: str, time_us: int) -> GpuReading:
    """A look at a card that gave nothing."""
    reasons = {**_NEVER, **dict.fromkeys(_READ, reason)}
    absent: Mapping[str, str] = {name: worded(why) for name, why in reasons.items()}
    return GpuReading(gpu=card.gpu, time_us=time_us, absent=absent)


def _percent(value: int | str) -> float | str:
    if isinstance(value, str):
        return value
    return float(value) if value <= 100 else NOT_UNDERSTOOD


def _thousandth(value: int | str) -> int | str:
    """Microwatts in milliwatts."""
    return value if isinstance(value, str) else value // 1_000


def _add_power(look: _Look) -> None:
    """Average power where there is one; MI300 and later only tell that of the moment. hwmon has µW and µJ."""
    look.first("power_milliwatts", *(_thousandth(look.sensor(f"power1_{kind}")) for kind in ("average", "input")))
    look.keep("power_limit_milliwatts", _thousandth(look.sensor("power1_cap")))
    energy = look.sensor("energy1_input")
    look.first("energy_microjoules", energy, _energy_of_metrics(look) if isinstance(energy, str) else energy)


def _energy_of_metrics(look: _Look) -> int | str:
    try:
        return energy_microjoules(read(f"{look.device}/gpu_metrics"))
    except OSError as error:
        return f"gpu_metrics: {reason_of(error)}"


def _add_temperatures(look: _Look) -> None:
    """Of the die's edge, or of its hottest point where it tells no other (MI300); without labels, the only one."""
    if look.hwmon is None:
        look.keep("temperature_celsius", NO_SENSORS)
        look.keep("memory_temperature_celsius", NO_SENSORS)
        return
    die, memory = look.channel("temp", "edge", "junction"), look.channel("temp", "mem")
    unlabelled = text(f"{look.hwmon}/temp1_label") is None
    look.keep("temperature_celsius", _celsius(look.sensor("temp1_input" if unlabelled else die, whole)))
    look.keep("memory_temperature_celsius", _celsius(look.sensor(memory, whole)))


def _celsius(value: int | str) -> float | str:
    return value if isinstance(value, str) else value / 1_000


def _add_clocks(look: _Look) -> None:
    """Hz by hwmon; else the level marked with a star in the table of levels."""
    for field, label, table in (
        ("sm_clock_hertz", "sclk", "pp_dpm_sclk"),
        ("memory_clock_hertz", "mclk", "pp_dpm_mclk"),
    ):
        hertz = NO_SENSORS if look.hwmon is None else look.sensor(look.channel("freq", label))
        if isinstance(hertz, str):
            marked = look.number(f"{look.device}/{table}", _marked_level)
            hertz = hertz if isinstance(marked, str) else marked
        look.keep(field, hertz)


def _marked_level(data: bytes) -> int | None:
    """`1: 1700Mhz *` in Hz."""
    for line in data.splitlines():
        level, _, rest = line.partition(b":")
        words = rest.split()
        if level.strip().isdigit() and len(words) == 2 and words[1] == b"*" and words[0].lower().endswith(b"mhz"):
            megahertz = count(words[0][:-3])
            return None if megahertz is None else megahertz * 1_000_000
    return None


def _add_errors(look: _Look) -> None:
    """Errors of all blocks together, since the driver was loaded; of part of the blocks would be another figure."""
    folder = f"{look.device}/ras"
    files = [name for name in names(folder) if name.endswith("_err_count")]
    corrected = uncorrected = 0
    reason = None if files else NO_SUCH_FILE
    for name in files:
        counts = _error_counts(f"{folder}/{name}")
        if isinstance(counts, str):
            reason = f"{name}: {counts}"
            break
        corrected, uncorrected = corrected + counts[0], uncorrected + counts[1]
    look.keep("ecc_corrected", corrected if reason is None else reason)
    look.keep("ecc_uncorrected", uncorrected if reason is None else reason)


def _error_counts(path: str) -> tuple[int, int] | str:
    """Corrected and uncorrected ones: lines `ue: 0` and `ce: 1`; `de`, deferred, is in neither."""
    try:
        pairs = dict(line.partition(b":")[::2] for line in read(path).splitlines())
    except OSError as error:
        return reason_of(error)
    corrected, uncorrected = count(pairs.get(b"ce", b"")), count(pairs.get(b"ue", b""))
    return NOT_UNDERSTOOD if corrected is None or uncorrected is None else (corrected, uncorrected)
