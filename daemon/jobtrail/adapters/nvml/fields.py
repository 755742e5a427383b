"""Values that nvmlDeviceGetFieldValues gives together, in one call a GPU. Runs in the child."""

from __future__ import annotations

import time
from typing import Any

import pynvml

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.calls import LASTING, Calls, reason_of
from jobtrail.adapters.nvml.found import Found
from jobtrail.adapters.nvml.questions import Question, call

_ALL_LINKS = 0xFFFFFFFF  # as scope: the sum of all links
_NUMBER_OF_TYPE = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t
_NOT_AVAILABLE = {1: 0xFFFFFFFF, 2: 0xFFFFFFFFFFFFFFFF, 3: 0xFFFFFFFFFFFFFFFF}
BYTES_PER_KIB = 1024
MICROJOULES_PER_MILLIJOULE = 1000
# Raw counters of which rates are made; no values of a reading themselves.
_PCIE_COUNTERS = {"pcie_receive_bytes": words.PCIE_VALUES[0], "pcie_transmit_bytes": words.PCIE_VALUES[1]}


class Field:
    """One field: `number` and `scope` as NVML counts them, `scale` from its unit to that of the value.

    Where it is refused for good, `otherwise` takes its place: another field, or a call of its own.
    """

    __slots__ = ("key", "otherwise", "scale", "value")

    def __init__(
        self, value: str, number: int, scope: int = 0, scale: int = 1, otherwise: Field | Question | None = None
    ) -> None:
        self.value = value
        self.key = (number, scope)
        self.scale = scale
        self.otherwise = otherwise


def _one(value: str, name: str, *arguments: int, scale: int = 1) -> Question:
    return Question((value,), call(name, lambda number: (number * scale,), *arguments))


def _link(value: str, kibibytes: int, byte_count: int) -> Field:
    newer = Field(value, byte_count, _ALL_LINKS)
    return Field(value, kibibytes, _ALL_LINKS, BYTES_PER_KIB, newer)


def _remapped() -> Question:
    # Corrected, uncorrected, pending, failed.
    return Question(
        ("remapped_rows_corrected", "remapped_rows_uncorrected", "remapped_rows_pending"),
        call("nvmlDeviceGetRemappedRows", lambda rows: (rows[0], rows[1], bool(rows[2]))),
    )


def _errors(value: str, number: int, kind: int) -> Field:
    aggregate = pynvml.NVML_AGGREGATE_ECC
    return Field(value, number, otherwise=_one(value, "nvmlDeviceGetTotalEccErrors", kind, aggregate))


def of_a_board(*, pcie: bool) -> list[Field]:
    """The fields of a whole GPU; with `pcie` also the counters of the bus, for GPUs without the profiling set.

    NVML's own nvmlDeviceGetPcieThroughput is not used: it blocks for the 20 ms it measures, per direction and GPU, and
    20 ms say little of a minute.
    """
    power, limit, energy = words.FIELD_VALUES[:3]
    fields = [
        # The mean of a second where the GPU makes one (Ampere and later), as in nvidia-smi's power.draw.
        Field(power, pynvml.NVML_FI_DEV_POWER_AVERAGE, otherwise=_one(power, "nvmlDeviceGetPowerUsage")),
        Field(limit, pynvml.NVML_FI_DEV_POWER_CURRENT_LIMIT, otherwise=_one(limit, "nvmlDeviceGetEnforcedPowerLimit")),
        Field(
            energy,
            pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
            0,
            MICROJOULES_PER_MILLIJOULE,
            _one(energy, "nvmlDeviceGetTotalEnergyConsumption", scale=MICROJOULES_PER_MILLIJOULE),
        ),
        Field("memory_temperature_celsius", pynvml.NVML_FI_DEV_MEMORY_TEMP),
        _link(
            "nvlink_receive_bytes",
            pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
            pynvml.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES,
        ),
        _link(
            "nvlink_transmit_bytes",
            pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
            pynvml.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES,
        ),
        _errors("ecc_corrected", pynvml.NVML_FI_DEV_ECC_SBE_AGG_TOTAL, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        _errors("ecc_uncorrected", pynvml.NVML_FI_DEV_ECC_DBE_AGG_TOTAL, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        Field("remapped_rows_corrected", pynvml.NVML_FI_DEV_REMAPPED_COR, otherwise=_remapped()),
        Field("remapped_rows_uncorrected", pynvml.NVML_FI_DEV_REMAPPED_UNC),
        Field("remapped_rows_pending", pynvml.NVML_FI_DEV_REMAPPED_PENDING),
    ]
    if pcie:
        fields.append(Field("pcie_receive_bytes", pynvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES))
        fields.append(Field("pcie_transmit_bytes", pynvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES))
    return fields


class Fields:
    """The batch of one GPU: what is refused for good leaves it."""

    def __init__(self, calls: Calls, gpu: int, handle: Any, fields: list[Field]) -> None:
        self._calls = calls
        self._gpu = gpu
        self._handle = handle
        self._fields = fields
        self._counters: dict[str, tuple[int, int]] = {}

    def read(self, found: Found) -> list[Question]:
        """Put values, and why others are absent, into `found`; returns what to ask where that is refused for good."""
        instead: list[Question] = []
        batch = self._fields
        while batch:
            refused = self._read(batch, found)
            if not refused:
                break
            self._fields = [field for field in self._fields if field not in refused]
            batch = [field.otherwise for field in refused if isinstance(field.otherwise, Field)]
            self._fields += batch
            instead += [field.otherwise for field in refused if isinstance(field.otherwise, Question)]
        return instead

    def _read(self, batch: list[Field], found: Found) -> list[Field]:
        """Ask for `batch`; returns what is refused for good."""
        try:
            answers = self._calls("nvmlDeviceGetFieldValues", self._gpu, self._handle, [field.key for field in batch])
        except pynvml.NVMLError as error:
            reason = reason_of(error.value)
            for field in batch:
                found.lacks(self._of(field), reason)
            return list(batch) if reason in LASTING else []
        refused = []
        for field, answer in zip(batch, answers, strict=True):
            if answer.nvmlReturn == pynvml.NVML_SUCCESS:
                self._take(field, answer, found)
                continue
            # A field the library has never heard of is an invalid argument to it.
            unheard = answer.nvmlReturn == pynvml.NVML_ERROR_INVALID_ARGUMENT
            reason = words.NOT_SUPPORTED if unheard else reason_of(answer.nvmlReturn)
            found.lacks(self._of(field), reason)
            if reason in LASTING:
                refused.append(field)
        return refused

    @staticmethod
    def _of(field: Field) -> str:
        """The value a field is for."""
        return _PCIE_COUNTERS.get(field.value, field.value)

    def _take(self, field: Field, answer: Any, found: Found) -> None:
        if answer.valueType >= len(_NUMBER_OF_TYPE):  # of a driver newer than this list
            found.lacks(self._of(field), words.UNKNOWN)
            return
        number = getattr(answer.value, _NUMBER_OF_TYPE[answer.valueType])
        if number == _NOT_AVAILABLE.get(answer.valueType):
            found.lacks(self._of(field), words.UNKNOWN)
        elif field.value in _PCIE_COUNTERS:
            self._take_rate(field.value, number, answer.timestamp or time.time_ns() // 1000, found)
        else:
            found.has(field.value, bool(number) if field.value == "remapped_rows_pending" else number * field.scale)

    def _take_rate(self, counter: str, number: int, time_us: int, found: Found) -> None:
        """Bytes a second since the look before. The counter wraps at a width NVML does not tell: then there is none."""
        before = self._counters.get(counter)
        self._counters[counter] = (number, time_us)
        if before is None or time_us <= before[1] or number < before[0]:
            found.lacks(_PCIE_COUNTERS[counter], words.NO_INTERVAL)
        else:
            found.has(_PCIE_COUNTERS[counter], (number - before[0]) * 1_000_000 // (time_us - before[1]))
