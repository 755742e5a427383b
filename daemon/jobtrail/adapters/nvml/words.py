"""Words that both processes use: values, reasons, problems, and the mark that tells which call the child is in.

Loaded in the child, so it imports little. The values are those of `jobtrail.domain.gpus.GpuReading` (a test compares).
"""

from __future__ import annotations

import struct

# Values of a reading, by the call of NVML or the batch that gives them.
FIELD_VALUES = (
    "power_milliwatts",
    "power_limit_milliwatts",
    "energy_microjoules",
    "memory_temperature_celsius",
    "nvlink_receive_bytes",
    "nvlink_transmit_bytes",
    "ecc_corrected",
    "ecc_uncorrected",
    "remapped_rows_corrected",
    "remapped_rows_uncorrected",
    "remapped_rows_pending",
)
PCIE_VALUES = ("pcie_receive_bytes_per_second", "pcie_transmit_bytes_per_second")
PROFILING_VALUES = (
    "sm_active_percent",
    "sm_occupancy_percent",
    "tensor_active_percent",
    "fp64_active_percent",
    "fp32_active_percent",
    "fp16_active_percent",
    "dram_active_percent",
)
BOARD_VALUES = (
    "utilization_percent",
    "memory_utilization_percent",
    "memory_used_bytes",
    "temperature_celsius",
    "sm_clock_hertz",
    "memory_clock_hertz",
    "throttle_reasons",
    "processes",
)
ALL_VALUES = (*BOARD_VALUES, *FIELD_VALUES, *PCIE_VALUES, *PROFILING_VALUES)

# Why a value is absent.
NOT_SUPPORTED = "not_supported"  # by this GPU, driver or mode; not asked again until the GPUs are looked up anew
NO_PERMISSION = "no_permission"  # the same
LOST = "lost"  # the GPU fell off the bus or waits for a reset
TIMEOUT = "timeout"  # the call hangs, or hung and is left out for a while
NO_INTERVAL = "no_interval"  # a value of the time since the look before, and there was none or it was just now
UNKNOWN = "unknown"
REASONS = (NOT_SUPPORTED, NO_PERMISSION, LOST, TIMEOUT, NO_INTERVAL, UNKNOWN)

# Why nothing at all could be read.
NO_DRIVER = "no_driver"  # neither device files nor the kernel's entry: a node without NVIDIA GPUs
NO_LIBRARY = "no_library"  # libnvidia-ml.so.1, part of the driver, cannot be loaded
NO_BINDING = "no_binding"  # the Python package nvidia-ml-py is not installed
DRIVER_NOT_LOADED = "driver_not_loaded"  # the library is there, the kernel module is not
VERSION_MISMATCH = "version_mismatch"  # library and kernel module are of two releases, as after an upgrade
DRIVER_RELOADED = "driver_reloaded"  # the driver no longer knows this reader
DENIED = "denied"  # the device files may not be opened
DRIVER_ERROR = "driver_error"  # any other error of NVML itself
STARTING = "starting"  # the driver is being opened; without persistence mode that takes seconds a GPU
HUNG = "hung"  # a call did not return in time
SLOW = "slow"  # the look as a whole did not end in time, but goes on
CRASHED = "crashed"  # the reader ended by itself
STUCK = "stuck"  # a killed reader has not ended: it waits in the kernel
PROBLEMS = (
    NO_DRIVER, NO_LIBRARY, NO_BINDING, DRIVER_NOT_LOADED, VERSION_MISMATCH, DRIVER_RELOADED, DENIED, DRIVER_ERROR,
    STARTING, HUNG, SLOW, CRASHED, STUCK,
)  # fmt: skip

# The mark: written by the child before each call, read by the parent when no answer came.
MARK = struct.Struct("=QHH")  # CLOCK_MONOTONIC in ns when the call began, number of the call, index of the GPU
MARK_BYTES = 4096
NO_CALL = 0xFFFF
NO_GPU = 0xFFFF
CALLS = (
    "nvmlInit",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetAttributes",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetGpuInstanceProfileInfo",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleAlloc",
    "nvmlGpmSampleFree",
    "nvmlGpmSampleGet",
    "nvmlGpmMigSampleGet",
    "nvmlGpmMetricsGet",
    "nvmlEventSetCreate",
    "nvmlEventSetFree",
    "nvmlEventSetWait_v2",
    "nvmlDeviceGetSupportedEventTypes",
    "nvmlDeviceRegisterEvents",
)

# Requests and answers: the length of what follows, then JSON.
LENGTH = struct.Struct("=I")
MAX_FRAME_BYTES = 8 << 20
EVERY_CALL = "*"  # among the calls to avoid: all those of a GPU
