"""Errors the driver tells of (XID), collected at each look without waiting. Runs in the child."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import pynvml

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.calls import Calls, address
from jobtrail.adapters.nvml.device import Board, Device

MAX_EVENTS = 256  # a look; a GPU in trouble tells the same again and again
_WHOLE = 0xFFFFFFFF  # as GPU instance: the event is of no instance


class Events:
    """The event set of a session. A GPU that tells of no events is left out of it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._set: Any = None

    def watch(self, boards: Sequence[Board]) -> None:
        """Have the driver keep the errors of `boards` from now on."""
        for board in boards:
            try:
                self._register(board)
            except pynvml.NVMLError:
                continue

    def collect(self, boards: Sequence[Board]) -> None:
        """Give each board, or its instance, what happened to it since the look before."""
        if self._set is None:
            return
        by_address = {board.address: board for board in boards}
        for _ in range(MAX_EVENTS):
            try:
                event = self._calls("nvmlEventSetWait_v2", words.NO_GPU, self._set, 0)
            except pynvml.NVMLError:
                return  # a time-out: there are no more
            board = by_address.get(address(event.device))
            if board is not None and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                entry = {"time_us": time.time_ns() // 1000, "code": int(event.eventData)}
                _whose(board, event).events.append(entry)

    def close(self) -> None:
        """Let the set go."""
        if self._set is not None:
            with contextlib.suppress(pynvml.NVMLError):
                self._calls("nvmlEventSetFree", words.NO_GPU, self._set)
            self._set = None

    def _register(self, board: Board) -> None:
        known = self._calls("nvmlDeviceGetSupportedEventTypes", board.index, board.handle)
        if not known & pynvml.nvmlEventTypeXidCriticalError:
            return
        if self._set is None:
            self._set = self._calls("nvmlEventSetCreate", words.NO_GPU)
        wanted = pynvml.nvmlEventTypeXidCriticalError
        self._calls("nvmlDeviceRegisterEvents", board.index, board.handle, wanted, self._set)


def _whose(board: Board, event: Any) -> Device:
    """The instance an event is of, or the board."""
    if event.gpuInstanceId == _WHOLE:
        return board
    of_it = [instance for instance in board.instances if instance.gpu_instance == event.gpuInstanceId]
    exact = [instance for instance in of_it if instance.compute_instance == event.computeInstanceId]
    one: Sequence[Device] = exact or of_it
    return one[0] if len(one) == 1 else board
