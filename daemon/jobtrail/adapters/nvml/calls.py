"""Every call of NVML, marked before it is made so that the parent can name the one that hangs. Runs in the child."""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Collection
from typing import Any

import pynvml

from jobtrail.adapters.nvml import words

_NUMBERS = {name: number for number, name in enumerate(words.CALLS)}
_REASONS = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: words.NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: words.NOT_SUPPORTED,  # the library is older than the function
    pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED: words.NOT_SUPPORTED,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: words.NOT_SUPPORTED,
    pynvml.NVML_ERROR_DEPRECATED: words.NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION: words.NO_PERMISSION,
    pynvml.NVML_ERROR_GPU_IS_LOST: words.LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED: words.LOST,
    pynvml.NVML_ERROR_TIMEOUT: words.TIMEOUT,
}
LASTING = frozenset({words.NOT_SUPPORTED, words.NO_PERMISSION})
_PROBLEMS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: words.NO_LIBRARY,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: words.DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: words.VERSION_MISMATCH,
    pynvml.NVML_ERROR_UNINITIALIZED: words.DRIVER_RELOADED,
    pynvml.NVML_ERROR_NO_PERMISSION: words.DENIED,
}
# In the middle of a look these are the driver's, not a GPU's.
_FATAL = frozenset(
    {
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_UNINITIALIZED,
    }
)


class DriverGone(Exception):
    """NVML as a whole cannot be used. `problem` is one of `words.PROBLEMS`."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(f"{problem}: {detail}")
        self.problem = problem
        self.detail = detail


def reason_of(code: int) -> str:
    """Why a value is absent, from the error NVML gave for it."""
    return _REASONS.get(code, words.UNKNOWN)


def driver_gone(error: pynvml.NVMLError, name: str) -> DriverGone:
    """What `error` of the call `name` says of the driver as a whole."""
    return DriverGone(_PROBLEMS.get(error.value, words.DRIVER_ERROR), f"{name}: {error}")


class Calls:
    """Makes calls of nvidia-ml-py by name.

    `marks` is memory shared with the parent. `avoid` holds (index of GPU, name or EVERY_CALL) of calls that hung
    before; they end at once, as timed out.
    """

    def __init__(self, marks: mmap.mmap) -> None:
        self._marks = marks
        self.avoid: Collection[tuple[int, str]] = frozenset()

    def __call__(self, name: str, gpu: int, *arguments: Any) -> Any:
        """What `name` returns. Raises pynvml.NVMLError, and DriverGone where the driver itself is gone."""
        if self.avoid and ((gpu, name) in self.avoid or (gpu, words.EVERY_CALL) in self.avoid):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        words.MARK.pack_into(self._marks, 0, time.monotonic_ns(), _NUMBERS[name], gpu)
        try:
            return getattr(pynvml, name)(*arguments)
        except pynvml.NVMLError as error:
            if error.value in _FATAL:
                raise driver_gone(error, name) from error
            raise

    def rest(self) -> None:
        """Mark that no call is being made."""
        words.MARK.pack_into(self._marks, 0, time.monotonic_ns(), words.NO_CALL, words.NO_GPU)


def address(handle: Any) -> int:
    """The address a handle of NVML is, which alone tells whether two are of one GPU."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
