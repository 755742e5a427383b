"""One GPU, or one instance of a partitioned one: who it is and what one look at it gives. Runs in the child."""

from __future__ import annotations

import time
from typing import Any

import pynvml

from jobtrail.adapters.nvml import fields, questions, words
from jobtrail.adapters.nvml.calls import LASTING, Calls, address, reason_of
from jobtrail.adapters.nvml.fields import Fields
from jobtrail.adapters.nvml.found import Found, GpuLost
from jobtrail.adapters.nvml.profiling import Profiling, is_supported
from jobtrail.adapters.nvml.questions import Question

# Of GPUs that can be partitioned, from the whole to the halves: the largest profile tells how much there is to share.
_PROFILES = (
    pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_8_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_6_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE,
)


class Device:
    """Something with values of its own. `identity` is a domain.gpus.Gpu as a dictionary."""

    def __init__(self, calls: Calls, index: int, handle: Any, identity: dict[str, Any]) -> None:
        self.calls = calls
        self.index = index  # of the board, in the driver's order
        self.handle = handle
        self.identity = identity
        self.events: list[dict[str, int]] = []
        self.lost = False
        self._questions: list[Question] = []
        self._fields: Fields | None = None
        self._profiling: Profiling | None = None
        self._lasting: dict[str, str] = {}

    @property
    def gpu_id(self) -> str:
        """The UUID."""
        return str(self.identity["gpu_id"])

    def read(self) -> dict[str, Any]:
        """A domain.gpus.GpuReading as a dictionary. Raises DriverGone."""
        time_us = time.time_ns() // 1000
        found = Found(self._lasting)
        try:
            self._look(found)
            self.lost = False
        except GpuLost:
            self.lost = True
            found = Found(dict.fromkeys(words.ALL_VALUES, words.LOST))
        events, self.events = self.events, []
        return {
            "gpu": self.identity,
            "time_us": time_us,
            **found.values,
            "events": events,
            "absent": found.absent,
        }

    def close(self) -> None:
        """Let go what the driver holds for it."""
        if self._profiling is not None:
            self._profiling.close()

    def _look(self, found: Found) -> None:
        if self._fields is not None:
            self._questions += self._fields.read(found)
        self._questions = [asked for question in self._questions if (asked := self._ask(question, found)) is not None]
        if self._profiling is not None:
            self._profiling.read(found)

    def _ask(self, question: Question, found: Found) -> Question | None:
        """Ask `question`, or what stands in for it; returns what is to be asked the next time."""
        asked: Question | None = question
        while asked is not None:
            try:
                answers = asked.ask(self.calls, self.index, self.handle)
            except pynvml.NVMLError as error:
                reason = reason_of(error.value)
                for value in asked.values:
                    found.lacks(value, reason)
                if reason not in LASTING:
                    return asked
                asked = asked.otherwise
            else:
                for value, answer in zip(asked.values, answers, strict=True):
                    found.has(value, answer)
                return asked
        return None


class Instance(Device):
    """A MIG device: a compute instance of a GPU instance of `board`."""

    def __init__(self, board: Board, number: int, handle: Any) -> None:
        identity = _identity(board.calls, board.index, handle)
        identity.update(
            minor=board.identity.get("minor"),
            index=number,
            pci_bus_id=board.identity.get("pci_bus_id"),
            driver_version=board.identity.get("driver_version"),
            parent_gpu_id=board.gpu_id,
        )
        super().__init__(board.calls, board.index, handle, identity)
        self._questions = questions.of_an_instance()
        self._lasting = questions.never_of_an_instance()
        calls, index = self.calls, self.index
        self.gpu_instance = _number(calls, "nvmlDeviceGetGpuInstanceId", index, handle)
        self.compute_instance = _number(calls, "nvmlDeviceGetComputeInstanceId", index, handle)
        identity.update(gpu_instance=self.gpu_instance, compute_instance=self.compute_instance)
        identity["share_of_parent"] = self._share(board.multiprocessors)

    def profile(self, board: Board, *, alone: bool) -> None:
        """Have the profiling set read if it is this instance's `alone`: it is made per GPU instance."""
        if alone and board.profiled and self.gpu_instance is not None:
            self._lasting.pop("utilization_percent", None)
            self._profiling = Profiling(self.calls, self.index, board.handle, self.gpu_instance)
        else:
            self._lasting.update(dict.fromkeys(words.PROFILING_VALUES, words.NOT_SUPPORTED))

    def _share(self, multiprocessors: int | None) -> float | None:
        if not multiprocessors:
            return None
        try:
            mine = self.calls("nvmlDeviceGetAttributes", self.index, self.handle).multiprocessorCount
        except pynvml.NVMLError:
            return None
        return float(mine / multiprocessors)


class Board(Device):
    """A whole GPU. In MIG mode it keeps power, energy and the like, and `instances` have the rest."""

    def __init__(self, calls: Calls, index: int, handle: Any, driver_version: str | None) -> None:
        identity = _identity(calls, index, handle)
        identity.update(
            minor=_number(calls, "nvmlDeviceGetMinorNumber", index, handle),
            index=index,
            pci_bus_id=_bus_id(calls, index, handle),
            driver_version=driver_version,
        )
        super().__init__(calls, index, handle, identity)
        self.address = address(handle)
        self.profiled = is_supported(calls, index, handle)
        self._questions = questions.of_a_board()
        self._fields = Fields(calls, index, handle, fields.of_a_board(pcie=not self.profiled))
        if self.profiled:
            self._profiling = Profiling(calls, index, handle, None)
        else:
            self._lasting = dict.fromkeys(words.PROFILING_VALUES, words.NOT_SUPPORTED)
        self.multiprocessors: int | None = None
        self.instances: list[Instance] = []
        self._can_be_partitioned = True
        self._partition = self._look_up_partition()
        if self._partition:
            self.multiprocessors = self._count_multiprocessors()
            self._add_instances()

    def is_partitioned_anew(self) -> bool:
        """Whether the instances are others than those that were found. Raises NVMLError, DriverGone."""
        return self._look_up_partition() != self._partition

    def close(self) -> None:
        """Let go what the driver holds for it and its instances."""
        super().close()
        for instance in self.instances:
            instance.close()

    def _look_up_partition(self) -> dict[int, str]:
        """UUID by number of the MIG devices; empty where the GPU is whole."""
        if not self._can_be_partitioned:
            return {}
        try:
            current, _pending = self.calls("nvmlDeviceGetMigMode", self.index, self.handle)
        except pynvml.NVMLError as error:
            if reason_of(error.value) not in LASTING:
                raise
            self._can_be_partitioned = False
            return {}
        if current != pynvml.NVML_DEVICE_MIG_ENABLE:
            return {}
        found = {}
        for number in range(self.calls("nvmlDeviceGetMaxMigDeviceCount", self.index, self.handle)):
            handle = self._instance(number)
            if handle is not None:
                found[number] = str(self.calls("nvmlDeviceGetUUID", self.index, handle))
        return found

    def _instance(self, number: int) -> Any:
        try:
            return self.calls("nvmlDeviceGetMigDeviceHandleByIndex", self.index, self.handle, number)
        except pynvml.NVMLError as error:
            # The numbers may have holes.
            if error.value in {pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT}:
                return None
            raise

    def _add_instances(self) -> None:
        for number in self._partition:
            handle = self._instance(number)
            if handle is not None:
                self.instances.append(Instance(self, number, handle))
        shared = [instance.gpu_instance for instance in self.instances]
        for instance in self.instances:
            instance.profile(self, alone=shared.count(instance.gpu_instance) == 1)

    def _count_multiprocessors(self) -> int | None:
        """Those that instances can have: some are not given to any (98 of 108 on an A100)."""
        for profile in _PROFILES:
            for version in (2, 1):
                try:
                    name = "nvmlDeviceGetGpuInstanceProfileInfo"
                    return int(self.calls(name, self.index, self.handle, profile, version).multiprocessorCount)
                except pynvml.NVMLError:
                    continue
        return None


def _identity(calls: Calls, index: int, handle: Any) -> dict[str, Any]:
    """What board and instance are both asked. Raises NVMLError where there is no UUID."""
    identity: dict[str, Any] = {"gpu_id": str(calls("nvmlDeviceGetUUID", index, handle)), "vendor": "nvidia"}
    try:
        identity["name"] = str(calls("nvmlDeviceGetName", index, handle))
        total = calls("nvmlDeviceGetMemoryInfo", index, handle).total
        identity["memory_total_bytes"] = total if total < 1 << 63 else None
    except pynvml.NVMLError as error:
        if reason_of(error.value) == words.LOST:
            raise
    return identity


def _number(calls: Calls, name: str, index: int, handle: Any) -> int | None:
    try:
        return int(calls(name, index, handle))
    except pynvml.NVMLError as error:
        if reason_of(error.value) == words.LOST:
            raise
        return None


def _bus_id(calls: Calls, index: int, handle: Any) -> str | None:
    try:
        bus_id = calls("nvmlDeviceGetPciInfo", index, handle).busId
    except pynvml.NVMLError:
        return None
    return bus_id.decode() if isinstance(bus_id, bytes) else str(bus_id)
