"""The GPM set of Hopper and later GPUs: means over the time between two looks. Runs in the child.

The driver counts between two samples that the reader holds; neither a profiler nor DCGM is needed, and a profiler in a
job is not disturbed.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import pynvml

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.calls import LASTING, Calls, reason_of
from jobtrail.adapters.nvml.found import Found

MIN_INTERVAL_SECONDS = 0.1  # the driver's counters are not finer than that
BYTES_PER_MIB = 1 << 20
_PERCENTAGES = {
    "sm_active_percent": pynvml.NVML_GPM_METRIC_SM_UTIL,
    "sm_occupancy_percent": pynvml.NVML_GPM_METRIC_SM_OCCUPANCY,
    "tensor_active_percent": pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
    "fp64_active_percent": pynvml.NVML_GPM_METRIC_FP64_UTIL,
    "fp32_active_percent": pynvml.NVML_GPM_METRIC_FP32_UTIL,
    "fp16_active_percent": pynvml.NVML_GPM_METRIC_FP16_UTIL,
    "dram_active_percent": pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
}
_BUS = {
    "pcie_receive_bytes_per_second": pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC,
    "pcie_transmit_bytes_per_second": pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC,
}
_UTILIZATION = {"utilization_percent": pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL}
OF_A_BOARD = _PERCENTAGES | _BUS
OF_AN_INSTANCE = _PERCENTAGES | _UTILIZATION  # NVML's own utilization is not made for instances


def is_supported(calls: Calls, gpu: int, handle: Any) -> bool:
    """Whether the GPU has the GPM set and the driver gives it."""
    try:
        return bool(calls("nvmlGpmQueryDeviceSupport", gpu, handle).isSupportedDevice)
    except pynvml.NVMLError:
        return False


class Profiling:
    """The GPM set of a board, or of its GPU instance `instance`. `handle` is the board's either way."""

    def __init__(self, calls: Calls, gpu: int, handle: Any, instance: int | None) -> None:
        self._calls = calls
        self._gpu = gpu
        self._handle = handle
        self._instance = instance
        self._metrics = OF_A_BOARD if instance is None else OF_AN_INSTANCE
        self._samples: list[Any] = []
        self._sampled: float | None = None  # when the first of the samples was taken
        self._question = pynvml.c_nvmlGpmMetricsGet_t()
        self._question.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        self._question.numMetrics = len(self._metrics)
        self._answers = {value: self._question.metrics[number] for number, value in enumerate(self._metrics)}
        for value, answer in self._answers.items():
            answer.metricId = self._metrics[value]
        self._refused = False

    def read(self, found: Found) -> None:
        """Put the means since the look before into `found`."""
        if self._refused:
            return
        now = time.monotonic()
        if self._sampled is not None and now - self._sampled < MIN_INTERVAL_SECONDS:
            self._lacks(found, words.NO_INTERVAL)
            return
        try:
            self._sample()
            if self._sampled is None:
                self._lacks(found, words.NO_INTERVAL)
            else:
                self._take(found)
        except pynvml.NVMLError as error:
            reason = reason_of(error.value)
            self._refused = reason in LASTING
            self._sampled = None
            self._lacks(found, reason)
            return
        self._samples.reverse()
        self._sampled = now

    def close(self) -> None:
        """Let the samples go."""
        for sample in self._samples:
            with contextlib.suppress(pynvml.NVMLError):
                self._calls("nvmlGpmSampleFree", self._gpu, sample)
        self._samples = []

    def _sample(self) -> None:
        """Take the second of the two samples; the first is of the look before."""
        while len(self._samples) < 2:
            self._samples.append(self._calls("nvmlGpmSampleAlloc", self._gpu))
        if self._instance is None:
            self._calls("nvmlGpmSampleGet", self._gpu, self._handle, self._samples[1])
        else:
            self._calls("nvmlGpmMigSampleGet", self._gpu, self._handle, self._instance, self._samples[1])

    def _take(self, found: Found) -> None:
        self._question.sample1, self._question.sample2 = self._samples
        self._calls("nvmlGpmMetricsGet", self._gpu, self._question)
        for value, answer in self._answers.items():
            if answer.nvmlReturn != pynvml.NVML_SUCCESS:
                found.lacks(value, reason_of(answer.nvmlReturn))
                continue
            number = answer.value
            if not math.isfinite(number) or number < 0:
                found.lacks(value, words.UNKNOWN)
            else:
                found.has(value, round(number * BYTES_PER_MIB) if value in _BUS else number)

    def _lacks(self, found: Found, reason: str) -> None:
        for value in self._metrics:
            found.lacks(value, reason)
