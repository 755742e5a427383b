"""NVML from its opening to its closing: which GPUs there are, and a look at all of them. Runs in the child."""

from __future__ import annotations

import contextlib
from typing import Any

import pynvml

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.calls import Calls, driver_gone, reason_of
from jobtrail.adapters.nvml.device import Board
from jobtrail.adapters.nvml.events import Events


class Session:
    """NVML opened. Every method raises DriverGone."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._boards: list[Board] = []
        self._unopened: dict[int, str] = {}  # index of GPU -> why there is no handle of it
        self._count = 0
        self._driver_version: str | None = None
        self._events = Events(calls)

    def open(self) -> None:
        """Initialise NVML and find the GPUs."""
        self._all("nvmlInit")
        with contextlib.suppress(pynvml.NVMLError):
            self._driver_version = str(self._calls("nvmlSystemGetDriverVersion", words.NO_GPU))
        self._find()

    def close(self) -> None:
        """Let the driver go."""
        self._forget()
        self._all("nvmlShutdown")

    def look(self) -> dict[str, Any]:
        """Readings of all GPUs in the driver's order, each followed by its instances, and which could not be opened."""
        self._find_again_if_changed()
        self._events.collect(self._boards)
        readings = []
        for board in self._boards:
            readings.append(board.read())
            readings += [instance.read() for instance in board.instances]
        self._calls.rest()
        return {"readings": readings, "unopened": self._unopened}

    def _all(self, name: str) -> Any:
        """Make a call that is about no GPU."""
        try:
            return self._calls(name, words.NO_GPU)
        except pynvml.NVMLError as error:
            raise driver_gone(error, name) from error

    def _forget(self) -> None:
        self._events.close()
        for board in self._boards:
            board.close()
        self._boards = []

    def _find(self) -> None:
        self._forget()
        self._count = self._all("nvmlDeviceGetCount")
        self._unopened = {}
        for index in range(self._count):
            try:
                handle = self._calls("nvmlDeviceGetHandleByIndex", index, index)
                self._boards.append(Board(self._calls, index, handle, self._driver_version))
            except pynvml.NVMLError as error:
                self._unopened[index] = reason_of(error.value)
        self._events.watch(self._boards)

    def _find_again_if_changed(self) -> None:
        if self._all("nvmlDeviceGetCount") != self._count or self._is_partitioned_anew():
            self._find()

    def _is_partitioned_anew(self) -> bool:
        for board in self._boards:
            try:
                if not board.lost and board.is_partitioned_anew():
                    return True
            except pynvml.NVMLError:
                continue  # the look itself will tell what is wrong with it
        return False
