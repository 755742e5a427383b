"""GPUs of a node: what one look at each of them gave.

A value is a number, or None with the reason in `absent`. Nothing is ever 0 because it could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process that holds a context on a GPU."""

    pid: int
    memory_used_bytes: int | None = None


class GpuEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error the driver told: for NVIDIA an XID, https://docs.nvidia.com/deploy/xid-errors/."""

    time_us: int
    code: int


class Gpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a GPU, or an instance of a partitioned one (MIG), is. It does not change while the driver is loaded."""

    gpu_id: str  # UUID as the driver gives it; for AMD the PCI bus id
    vendor: str  # nvidia | amd
    minor: int | None = None  # of the device file: /dev/nvidia<minor>, /dev/dri/renderD<minor>
    index: int | None = None  # the driver's own order
    pci_bus_id: str | None = None
    name: str | None = None
    memory_total_bytes: int | None = None
    parent_gpu_id: str | None = None  # of an instance: the board it is part of
    share_of_parent: float | None = None  # of an instance: its part of the board's multiprocessors, 0 to 1
    driver_version: str | None = None
    gpu_instance: int | None = None  # of an instance: the driver's numbers of it within the board
    compute_instance: int | None = None
    capability_minors: tuple[int, ...] = ()  # of an instance: /dev/nvidia-caps/nvidia-cap<minor> that give access to it


class GpuReading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One look at one GPU: levels now, and counters that only grow until the driver is loaded anew."""

    gpu: Gpu
    time_us: int
    utilization_percent: float | None = None  # of time in which any kernel ran
    memory_utilization_percent: float | None = None  # of time in which memory was read or written
    memory_used_bytes: int | None = None
    power_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    energy_microjoules: int | None = None  # counter
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    sm_clock_hertz: int | None = None
    memory_clock_hertz: int | None = None
    throttle_reasons: tuple[str, ...] | None = None  # in small letters; () is "runs freely", None is unknown
    pcie_receive_bytes_per_second: int | None = None
    pcie_transmit_bytes_per_second: int | None = None
    nvlink_receive_bytes: int | None = None  # counter
    nvlink_transmit_bytes: int | None = None  # counter
    ecc_corrected: int | None = None  # counter, aggregate
    ecc_uncorrected: int | None = None  # counter, aggregate
    remapped_rows_corrected: int | None = None
    remapped_rows_uncorrected: int | None = None
    remapped_rows_pending: bool | None = None
    # The GPM set (Hopper and later), of the time since the look before.
    sm_active_percent: float | None = None
    sm_occupancy_percent: float | None = None
    tensor_active_percent: float | None = None
    fp64_active_percent: float | None = None
    fp32_active_percent: float | None = None
    fp16_active_percent: float | None = None
    dram_active_percent: float | None = None
    events: tuple[GpuEvent, ...] = ()  # since the look before
    processes: tuple[GpuProcess, ...] | None = None
    absent: Mapping[str, str] = {}  # name of a value -> why there is none


class GpuLook(msgspec.Struct, frozen=True, kw_only=True):
    """One look at all GPUs of a vendor. `problem` says why nothing could be read; then `readings` is empty.

    `problem` is one of a few words an adapter defines, `detail` a sentence for people: on the problem, or on GPUs that
    could not be opened while others could.
    """

    vendor: str
    time_us: int
    readings: tuple[GpuReading, ...] = ()
    problem: str | None = None
    detail: str | None = None
    seconds: float = 0.0  # what the look cost
