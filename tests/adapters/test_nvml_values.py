"""What a look at NVIDIA GPUs gives: every value exact, or absent with its reason."""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
import pynvml
import pytest

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.profiling import MIN_INTERVAL_SECONDS
from jobtrail.domain.gpus import GpuProcess, GpuReading
from tests.adapters.nvml_bench import bench
from tests.fake_nvml import ALL_LINKS, board, field

NOT_VALUES = {"gpu", "time_us", "events", "absent"}


def values_of(reading: GpuReading) -> dict[str, object]:
    """The values of a reading by name, absent ones as None."""
    return {name: getattr(reading, name) for name in reading.__struct_fields__ if name not in NOT_VALUES}


def every_value_is_a_number_or_absent_with_a_reason(reading: GpuReading) -> None:
    for name, value in values_of(reading).items():
        assert (value is None) == (name in reading.absent), (name, value, reading.absent.get(name))
    assert set(reading.absent.values()) <= set(words.REASONS)


def test_the_words_name_every_value_of_a_reading() -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(GpuReading)} - NOT_VALUES
    assert set(words.ALL_VALUES) == fields
    assert len(words.ALL_VALUES) == len(fields)


def test_every_call_has_a_number_and_is_one_of_the_bindings() -> None:
    """A call without a number could not be marked, and the reader would end."""
    sources = [path.read_text(encoding="utf-8") for path in Path(words.__file__).parent.glob("*.py")]
    named = {name for source in sources for name in re.findall(r'"(nvml[A-Z]\w+)"', source)}
    assert {name for name in named if hasattr(pynvml, name)} == set(words.CALLS)
    assert len(set(words.CALLS)) == len(words.CALLS)


async def test_every_value_of_a_whole_gpu_is_what_the_driver_says(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.gpu(0, throttle=0x4 | 0x40 | 0x2000, processes="4711:1000,4712")
        (reading,) = (await made.second()).readings
        every_value_is_a_number_or_absent_with_a_reason(reading)
        assert reading.absent == {}
        assert msgspec.structs.asdict(reading.gpu) == {
            "gpu_id": "GPU-00000000-0000-0000-0000-000000000000",
            "vendor": "nvidia",
            "minor": 0,
            "index": 0,
            "pci_bus_id": "00000000:10:00.0",
            "name": "NVIDIA H100 80GB HBM3",
            "memory_total_bytes": 85_520_809_984,
            "parent_gpu_id": None,
            "share_of_parent": None,
            "gpu_instance": None,
            "compute_instance": None,
            "capability_minors": (),
            "driver_version": "575.57.08",
        }
        assert values_of(reading) == {
            "utilization_percent": 10.0,
            "memory_utilization_percent": 5.0,
            "memory_used_bytes": 1_048_576,
            "power_milliwatts": 100_000,
            "power_limit_milliwatts": 700_000,
            "energy_microjoules": 5_000_000_000_000,
            "temperature_celsius": 30.0,
            "memory_temperature_celsius": 40.0,
            "sm_clock_hertz": 1_980_000_000,
            "memory_clock_hertz": 2_619_000_000,
            "throttle_reasons": ("sw_power_cap", "hw_thermal_slowdown", "bit_13"),
            "pcie_receive_bytes_per_second": 1_572_864,
            "pcie_transmit_bytes_per_second": 2_359_296,
            "nvlink_receive_bytes": 1_024_000_000,
            "nvlink_transmit_bytes": 2_048_000_000,
            "ecc_corrected": 3,
            "ecc_uncorrected": 1,
            "remapped_rows_corrected": 4,
            "remapped_rows_uncorrected": 2,
            "remapped_rows_pending": False,
            "sm_active_percent": 81.25,
            "sm_occupancy_percent": 42.5,
            "tensor_active_percent": 63.75,
            "fp64_active_percent": 0.0,
            "fp32_active_percent": 12.5,
            "fp16_active_percent": 6.25,
            "dram_active_percent": 33.5,
            "processes": (GpuProcess(pid=4711, memory_used_bytes=1000), GpuProcess(pid=4712)),
        }


async def test_values_are_read_anew_at_every_look(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        energy = field(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION)
        for millijoules in (7, 8_000_000_000_000, 9):  # the last as after a reset of the counter
            made.driver.put({f"gpu.0.{energy}": millijoules})
            assert (await made.one()).energy_microjoules == millijoules * 1000


async def test_sixty_four_gpus_each_with_values_of_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=64) as made:
        readings = (await made.second()).readings
        assert [reading.gpu.index for reading in readings] == list(range(64))
        for index, reading in enumerate(readings):
            said = board(index)
            assert reading.gpu.gpu_id == said["uuid"]
            assert reading.gpu.minor == index
            assert reading.gpu.pci_bus_id == said["bus_id"]
            assert reading.power_milliwatts == said[field(pynvml.NVML_FI_DEV_POWER_AVERAGE)]
            assert reading.sm_active_percent == 81.25 - index / 8
            every_value_is_a_number_or_absent_with_a_reason(reading)


async def test_minor_numbers_and_order_may_differ(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=3) as made:
        for index, minor in enumerate((2, 0, 1)):
            made.driver.gpu(index, minor=minor)
        readings = (await made.look()).readings
        assert [(reading.gpu.index, reading.gpu.minor) for reading in readings] == [(0, 2), (1, 0), (2, 1)]


async def test_a_gpu_that_says_nothing_has_no_value_and_no_zero(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.without("gpu.0.")
        made.driver.gpu(0, uuid="GPU-bare")
        reading = await made.one()
        assert set(values_of(reading).values()) == {None}
        assert reading.absent == dict.fromkeys(words.ALL_VALUES, words.NOT_SUPPORTED)
        assert reading.gpu.minor is None
        assert reading.gpu.name is None


async def test_what_is_not_supported_is_asked_once_until_the_gpus_are_looked_up_anew(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.without("gpu.0.temperature")
        made.driver.put({"error.nvmlDeviceGetUtilizationRates": pynvml.NVML_ERROR_NO_PERMISSION})
        first = await made.one()
        assert first.absent["temperature_celsius"] == words.NOT_SUPPORTED
        assert first.absent["utilization_percent"] == words.NO_PERMISSION
        made.driver.put({"error.nvmlDeviceGetUtilizationRates": None, "log": 1})
        again = await made.one()
        assert again.absent["temperature_celsius"] == words.NOT_SUPPORTED
        assert again.absent["utilization_percent"] == words.NO_PERMISSION
        asked = {name for name, _ in made.driver.calls()}
        assert "nvmlDeviceGetClockInfo" in asked
        assert not asked & {"nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetUtilizationRates"}
        made.driver.set(count=0)
        await made.look()
        made.driver.set(count=1)
        assert (await made.one()).utilization_percent == 10.0


async def test_what_fails_for_the_moment_is_asked_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.put({"error.nvmlDeviceGetTemperature": pynvml.NVML_ERROR_UNKNOWN})
        assert (await made.one()).absent["temperature_celsius"] == words.UNKNOWN
        made.driver.put({"error.nvmlDeviceGetTemperature": None})
        assert (await made.one()).temperature_celsius == 30.0


@pytest.mark.parametrize("width", [1, 3])
async def test_a_value_nvml_calls_not_available_is_absent(tmp_path: Path, width: int) -> None:
    async with bench(tmp_path) as made:
        text = "uint:0xffffffff" if width == 1 else "0xffffffffffffffff"
        made.driver.put({f"gpu.0.{field(pynvml.NVML_FI_DEV_POWER_AVERAGE)}": text})
        assert (await made.one()).absent["power_milliwatts"] == words.UNKNOWN


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (f"{field(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION)}", "energy_microjoules", "0xfffffffffffffffe"),
        (f"{field(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION)}", "energy_microjoules", "newtype:7"),
        (
            f"{field(pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, ALL_LINKS)}",
            "nvlink_receive_bytes",
            "0x7fffffffffffffff",
        ),
        ("utilization", "utilization_percent", "4294967295"),
        ("temperature", "temperature_celsius", "4294967295"),
        ("memory_used", "memory_used_bytes", "0xffffffffffffffff"),
    ],
)
async def test_what_no_gpu_can_have_is_no_value(tmp_path: Path, name: str, value: str, text: str) -> None:
    """-1 in an unsigned number, a type the reader does not know: neither may get into a sum or overflow a column."""
    async with bench(tmp_path) as made:
        made.driver.put({f"gpu.0.{name}": text})
        reading = await made.one()
        assert getattr(reading, value) is None
        assert reading.absent[value] == words.UNKNOWN
        assert reading.power_milliwatts is not None


async def test_a_memory_size_that_cannot_be_is_unknown(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.put({"gpu.0.memory_total": "0xffffffffffffffff"})
        assert (await made.one()).gpu.memory_total_bytes is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (pynvml.NVML_ERROR_NOT_SUPPORTED, words.NOT_SUPPORTED),
        (pynvml.NVML_ERROR_INVALID_ARGUMENT, words.NOT_SUPPORTED),  # a field the library does not know
        (pynvml.NVML_ERROR_NO_PERMISSION, words.NO_PERMISSION),
        (pynvml.NVML_ERROR_TIMEOUT, words.TIMEOUT),
        (pynvml.NVML_ERROR_NO_DATA, words.UNKNOWN),
    ],
)
async def test_a_field_of_the_batch_is_absent_for_its_own_reason(tmp_path: Path, code: int, reason: str) -> None:
    async with bench(tmp_path) as made:
        made.driver.gpu(0, **{f"fielderror.{pynvml.NVML_FI_DEV_MEMORY_TEMP}": code})
        reading = await made.one()
        assert reading.absent["memory_temperature_celsius"] == reason
        assert reading.energy_microjoules == 5_000_000_000_000


async def test_values_without_a_field_come_from_calls_of_their_own(tmp_path: Path) -> None:
    """As on GPUs before Ampere: the batch refuses, single calls answer, and already in the first look."""
    async with bench(tmp_path) as made:
        made.driver.without("gpu.0.field.")
        made.driver.gpu(
            0, power=71_000, power_limit=300_000, energy=123, remapped="5,6,1,0", **{"ecc.0.1": 11, "ecc.1.1": 12}
        )
        for _ in range(2):
            reading = await made.one()
            assert reading.power_milliwatts == 71_000
            assert reading.power_limit_milliwatts == 300_000
            assert reading.energy_microjoules == 123_000
            assert (reading.ecc_corrected, reading.ecc_uncorrected) == (11, 12)
            assert (reading.remapped_rows_corrected, reading.remapped_rows_uncorrected) == (5, 6)
            assert reading.remapped_rows_pending is True
            assert reading.absent["nvlink_receive_bytes"] == words.NOT_SUPPORTED
            every_value_is_a_number_or_absent_with_a_reason(reading)


async def test_nvlink_of_a_gpu_that_counts_bytes_and_not_kibibytes(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.without("gpu.0.field.13")  # 138 and 139
        made.driver.gpu(
            0,
            **{
                field(pynvml.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES, ALL_LINKS): 77,
                field(pynvml.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES, ALL_LINKS): 88,
            },
        )
        reading = await made.one()
        assert (reading.nvlink_receive_bytes, reading.nvlink_transmit_bytes) == (77, 88)


async def test_an_old_driver_without_the_newer_functions(tmp_path: Path) -> None:
    async with bench(tmp_path, old=True) as made:
        made.driver.gpu(0, throttle=1, processes="9:5")
        await made.look()
        reading = await made.one()
        assert reading.memory_used_bytes == 1_048_576 + 7_000_000  # what the driver keeps is counted in
        assert reading.throttle_reasons == ("gpu_idle",)
        assert reading.processes == (GpuProcess(pid=9, memory_used_bytes=5),)
        assert reading.absent["sm_active_percent"] == words.NOT_SUPPORTED
        assert reading.power_milliwatts == 100_000
        every_value_is_a_number_or_absent_with_a_reason(reading)


async def test_traffic_on_the_bus_without_the_profiling_set(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        receive, transmit = field(pynvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES), field(pynvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES)
        made.driver.gpu(0, gpm=0, **{receive: 5000, transmit: 70})
        made.driver.set(timestamp=1_000_000)
        assert (await made.one()).absent["pcie_receive_bytes_per_second"] == words.NO_INTERVAL
        made.driver.gpu(0, **{receive: 5000 + 3_000_000})
        made.driver.set(timestamp=2_500_000)
        reading = await made.one()
        assert reading.pcie_receive_bytes_per_second == 2_000_000
        assert reading.pcie_transmit_bytes_per_second == 0
        made.driver.gpu(0, **{transmit: 0})  # wrapped
        made.driver.set(timestamp=4_000_000)
        assert (await made.one()).absent["pcie_transmit_bytes_per_second"] == words.NO_INTERVAL


async def test_profiling_needs_an_interval_and_does_not_repeat_the_last_one(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.look()
        for _ in range(100):
            await made.interval()
            began = time.monotonic()
            good = await made.one()
            reading = await made.one()
            assert good.sm_active_percent == 81.25
            if time.monotonic() - began < MIN_INTERVAL_SECONDS:  # else the machine paused: there was an interval
                break
        else:
            raise AssertionError("no two looks in 100 were right after each other")
        assert reading.sm_active_percent is None
        assert reading.absent["sm_active_percent"] == words.NO_INTERVAL


@pytest.mark.parametrize("nonsense", ["nan", "inf", "-1"])
async def test_a_profiling_value_that_is_none_is_absent(tmp_path: Path, nonsense: str) -> None:
    async with bench(tmp_path) as made:
        made.driver.gpu(0, **{f"gpm.{pynvml.NVML_GPM_METRIC_SM_UTIL}": nonsense})
        (reading,) = (await made.second()).readings
        assert reading.absent == {"sm_active_percent": words.UNKNOWN}


async def test_processes_that_compute_through_mps_are_named_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.gpu(0, processes="10:1,11:2", mps="11:3,12:4")
        assert (await made.one()).processes == (
            GpuProcess(pid=10, memory_used_bytes=1),
            GpuProcess(pid=11, memory_used_bytes=3),
            GpuProcess(pid=12, memory_used_bytes=4),
        )
        made.driver.gpu(0, processes="10:1", mps=None)
        assert (await made.one()).processes == (GpuProcess(pid=10, memory_used_bytes=1),)


async def test_no_process_is_an_empty_list_and_not_unknown(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        reading = await made.one()
        assert reading.processes == ()
        assert reading.throttle_reasons == ()
