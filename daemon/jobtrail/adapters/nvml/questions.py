"""What is asked of a GPU call by call, and what instead where a GPU or an older driver refuses. Runs in the child.

Calls that NVML answers in a batch are in `fields`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pynvml

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.calls import LASTING, Calls, reason_of

Ask = Callable[[Calls, int, Any], tuple[Any, ...]]

HERTZ_PER_MHZ = 1_000_000
# nvmlClocksEventReasons of nvml.h, by bit.
_THROTTLE_REASONS = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
    "board_limit",
    "reliability",
)


class Question:
    """Values that one call gives. `otherwise` is asked from then on where this one is refused for good."""

    __slots__ = ("ask", "otherwise", "values")

    def __init__(self, values: tuple[str, ...], ask: Ask, otherwise: Question | None = None) -> None:
        self.values = values
        self.ask = ask
        self.otherwise = otherwise


def call(name: str, take: Callable[[Any], tuple[Any, ...]], *arguments: Any) -> Ask:
    """Asks by calling `name` with the handle and `arguments`; `take` makes the values of what it returns."""

    def ask(calls: Calls, gpu: int, handle: Any) -> tuple[Any, ...]:
        return take(calls(name, gpu, handle, *arguments))

    return ask


def _throttle_reasons(bits: int) -> tuple[list[str]]:
    return ([_throttle_name(bit) for bit in range(bits.bit_length()) if bits >> bit & 1],)


def _throttle_name(bit: int) -> str:
    return _THROTTLE_REASONS[bit] if bit < len(_THROTTLE_REASONS) else f"bit_{bit}"


class _Processes:
    """Processes with a compute context, those that compute through MPS included, each once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ask_mps = True

    def __call__(self, calls: Calls, gpu: int, handle: Any) -> tuple[list[dict[str, int | None]]]:
        found: dict[int, int | None] = dict(self._memory_by_pid(calls(self._name, gpu, handle)))
        if self._ask_mps:
            try:
                found.update(self._memory_by_pid(calls("nvmlDeviceGetMPSComputeRunningProcesses_v3", gpu, handle)))
            except pynvml.NVMLError as error:
                # Where a GPU knows no MPS, the first list is all there is.
                self._ask_mps = reason_of(error.value) not in LASTING
                if self._ask_mps:
                    raise
        return ([{"pid": pid, "memory_used_bytes": used} for pid, used in found.items()],)

    @staticmethod
    def _memory_by_pid(processes: Any) -> Iterator[tuple[int, int | None]]:
        return ((process.pid, process.usedGpuMemory) for process in processes)


def _memory() -> Question:
    values = ("memory_used_bytes",)
    # The second version counts what the driver keeps for itself apart from what is used.
    newer = call("nvmlDeviceGetMemoryInfo", lambda memory: (memory.used,), pynvml.nvmlMemory_v2)
    return Question(values, newer, Question(values, call("nvmlDeviceGetMemoryInfo", lambda memory: (memory.used,))))


def _processes() -> Question:
    values = ("processes",)
    older = Question(values, _Processes("nvmlDeviceGetComputeRunningProcesses_v2"))
    return Question(values, _Processes("nvmlDeviceGetComputeRunningProcesses_v3"), older)


def _clock(value: str, kind: int) -> Question:
    return Question((value,), call("nvmlDeviceGetClockInfo", lambda mhz: (mhz * HERTZ_PER_MHZ,), kind))


def of_a_board() -> list[Question]:
    """The questions to a whole GPU."""
    temperature, throttle = ("temperature_celsius",), ("throttle_reasons",)
    sensor = pynvml.NVML_TEMPERATURE_GPU
    return [
        Question(
            ("utilization_percent", "memory_utilization_percent"),
            call("nvmlDeviceGetUtilizationRates", lambda rates: (rates.gpu, rates.memory)),
        ),
        _memory(),
        Question(
            temperature,
            call("nvmlDeviceGetTemperature", lambda degrees: (degrees,), sensor),
            # The first is announced to go with CUDA 14.
            Question(temperature, call("nvmlDeviceGetTemperatureV", lambda degrees: (degrees,), sensor)),
        ),
        _clock("sm_clock_hertz", pynvml.NVML_CLOCK_SM),
        _clock("memory_clock_hertz", pynvml.NVML_CLOCK_MEM),
        Question(
            throttle,
            call("nvmlDeviceGetCurrentClocksEventReasons", _throttle_reasons),
            # Its name before driver 535.
            Question(throttle, call("nvmlDeviceGetCurrentClocksThrottleReasons", _throttle_reasons)),
        ),
        _processes(),
    ]


def of_an_instance() -> list[Question]:
    """The questions to an instance of a partitioned GPU (MIG); power, energy, clocks and the like are the board's."""
    return [_memory(), _processes()]


def never_of_an_instance() -> dict[str, str]:
    """The values an instance never has. Its utilization is of the profiling set, where there is one."""
    asked = {value for question in of_an_instance() for value in question.values} | set(words.PROFILING_VALUES)
    return {value: words.NOT_SUPPORTED for value in words.ALL_VALUES if value not in asked}
