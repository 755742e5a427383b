"""AMD GPUs from trees of sysfs: every value exact or absent with a reason, and a read that hangs harms nobody else."""

import asyncio
import subprocess
import sys as python
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobtrail.adapters.amdgpu import AmdGpuSource
from jobtrail.core.ports import GpuSource
from jobtrail.domain.gpus import Gpu, GpuLook, GpuProcess, GpuReading
from tests.adapters.amdgpu_trees import (
    EDGE_CARD,
    EDGE_SENSORS,
    Sys,
    gpu_metrics,
    make_hang,
    release,
    values,
    write,
)

BUS = "0000:c1:00.0"
OTHER = "0000:c6:00.0"


@pytest.fixture
def sys(tmp_path: Path) -> Sys:
    return Sys(tmp_path / "sys")


async def look(sys: Sys) -> GpuLook:
    source: GpuSource = AmdGpuSource(sys.root, deadline_seconds=60, clock_us=lambda: 42)
    try:
        return await source.look()
    finally:
        await source.close()


async def only(sys: Sys) -> GpuReading:
    got = await look(sys)
    assert got.problem is None
    (reading,) = got.readings
    return reading


async def test_all_values_of_a_card(sys: Sys) -> None:
    sys.put(0, BUS)
    write(sys.root / "module" / "amdgpu", {"version": "6.8.5\n"})
    sys.put_nodes(gpu_7=128)
    sys.put_process(4711, gpu_7=2_097_152)
    got = await look(sys)
    assert (got.vendor, got.time_us, got.problem) == ("amd", 42, None)
    assert got.seconds > 0
    (reading,) = got.readings
    assert reading.gpu == Gpu(
        gpu_id=BUS, vendor="amd", minor=128, index=0, pci_bus_id=BUS, name="AMD INSTINCT MI250 (MCM) OAM AC MBA",
        memory_total_bytes=68_702_699_520, driver_version="6.8.5",
    )  # fmt: skip
    assert reading.time_us == 42
    assert values(reading) == {
        "utilization_percent": 37.0,
        "memory_utilization_percent": 12.0,
        "memory_used_bytes": 1 << 30,
        "power_milliwatts": 251_000,
        "power_limit_milliwatts": 500_000,
        "temperature_celsius": 45.0,
        "memory_temperature_celsius": 61.0,
        "sm_clock_hertz": 1_685_000_000,
        "memory_clock_hertz": 1_600_000_000,
        "ecc_corrected": 23,
        "ecc_uncorrected": 3,
        "processes": (GpuProcess(pid=4711, memory_used_bytes=2_097_152),),
    }
    assert reading.absent["energy_microjoules"] == "not_supported: gpu_metrics: no such file"


async def test_every_value_is_there_or_has_a_reason(sys: Sys) -> None:
    sys.put(0, BUS)
    sys.put(1, OTHER, files={}, sensors={})
    for reading in (await look(sys)).readings:
        everything = set(reading.__struct_fields__) - {"gpu", "time_us", "absent", "events"}
        assert set(values(reading)) | set(reading.absent) == everything
        assert not set(values(reading)) & set(reading.absent)


async def test_a_card_that_tells_nothing_has_no_value_and_no_nought(sys: Sys) -> None:
    sys.put(0, BUS, files={}, sensors={})
    reading = await only(sys)
    assert values(reading) == {}
    assert reading.gpu.memory_total_bytes is None
    assert reading.gpu.name == "AMD 0x1002:0x740f"
    assert reading.absent["utilization_percent"] == "not_supported: no such file"
    assert reading.absent["power_milliwatts"] == "not_supported: no sensors of amdgpu"
    assert reading.absent["temperature_celsius"] == "not_supported: no sensors of amdgpu"
    assert reading.absent["ecc_corrected"] == "not_supported: no such file"
    assert reading.absent["processes"].endswith("class/kfd/kfd: no such file")


async def test_only_cards_that_amdgpu_drives_count_in_the_drivers_order(sys: Sys) -> None:
    sys.put(10, "0000:01:00.0")
    sys.put(2, BUS)
    sys.put(0, "0000:02:00.0", vendor="0x10de", driver="nvidia")
    sys.put(1, "0000:03:00.0", driver="radeon")
    sys.put(3, "not:a:bus")
    (sys.drm / "version").write_text("drm 1.1.0 20060810\n")
    gpus = [reading.gpu for reading in (await look(sys)).readings]
    assert [(gpu.gpu_id, gpu.index, gpu.minor) for gpu in gpus] == [(BUS, 0, 130), ("0000:01:00.0", 1, 138)]


@pytest.mark.parametrize("drm", [True, False])
async def test_no_card_is_a_problem_told_and_not_an_error(tmp_path: Path, drm: bool) -> None:
    if drm:
        Sys(tmp_path)
    got = await AmdGpuSource(tmp_path, deadline_seconds=60).look()
    assert got.readings == ()
    assert (got.problem, got.detail) == ("no_driver", f"{tmp_path}/class/drm: no AMD card that amdgpu drives")


async def test_a_card_of_the_mi300_family(sys: Sys) -> None:
    """No edge temperature, no average power, and a counter of energy in the binary table."""
    sensors = {
        "name": "amdgpu\n", "power1_input": "180000000\n", "temp2_input": "48000\n", "temp2_label": "junction\n",
        "temp1_label": "vr\n", "temp3_input": "-2000\n", "temp3_label": "mem\n",
    }  # fmt: skip
    device = sys.put(0, BUS, sensors=sensors)
    (device / "gpu_metrics").write_bytes(gpu_metrics((1, 6), 1_664, 16, 65_536 * 1_000))
    reading = await only(sys)
    assert reading.power_milliwatts == 180_000
    assert reading.temperature_celsius == 48.0
    assert reading.memory_temperature_celsius == -2.0
    assert reading.energy_microjoules == 1_000 * 10**6
    assert (reading.sm_clock_hertz, reading.memory_clock_hertz) == (1_700_000_000, 1_600_000_000)


@pytest.mark.parametrize(
    ("version", "size", "offset"),
    [
        ((1, 4), 288, 24), ((1, 5), 360, 88), ((1, 6), 1_664, 16), ((1, 7), 2_208, 24), ((1, 8), 3_360, 24),
        ((1, 8), 3_872, 24),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("steps", "microjoules"), [(0, 0), (1, 15), (65_536, 10**6), (2**45 + 1, 2**29 * 10**6 + 15)])
async def test_the_energy_counter_of_each_layout(
    sys: Sys, version: tuple[int, int], size: int, offset: int, steps: int, microjoules: int
) -> None:
    device = sys.put(0, BUS)
    (device / "gpu_metrics").write_bytes(gpu_metrics(version, size, offset, steps))
    assert (await only(sys)).energy_microjoules == microjoules


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"", "gpu_metrics is too short"),
        (b"\x00" * 3, "gpu_metrics is too short"),
        (gpu_metrics((1, 3), 120, 24, 5), "gpu_metrics v1_3 has no energy counter of a known unit"),
        (gpu_metrics((2, 1), 120, 24, 5), "gpu_metrics v2_1 has no energy counter of a known unit"),
        (gpu_metrics((1, 9), 120, 24, 5), "gpu_metrics v1_9 has no energy counter of a known unit"),
        (gpu_metrics((1, 6), 400, 88, 5), "gpu_metrics v1_6 has an unknown size"),
        (gpu_metrics((1, 6), 1_664, 16, 5)[:100], "gpu_metrics v1_6 has an unknown size"),
        (gpu_metrics((1, 6), 1_664, 16, 2**64 - 1), "gpu_metrics v1_6 leaves the energy open"),
        (gpu_metrics((1, 6), 1_664, 16, 2**64 - 2), "not understood"),
    ],
)
async def test_a_table_that_does_not_tell_the_energy_says_why(sys: Sys, table: bytes, reason: str) -> None:
    device = sys.put(0, BUS)
    (device / "gpu_metrics").write_bytes(table)
    reading = await only(sys)
    assert reading.energy_microjoules is None
    assert reading.absent["energy_microjoules"].partition(": ")[2] == reason


async def test_a_counter_of_the_sensors_goes_before_the_table(sys: Sys) -> None:
    device = sys.put(0, BUS, sensors={**EDGE_SENSORS, "energy1_input": "123456789\n"})
    (device / "gpu_metrics").write_bytes(gpu_metrics((1, 6), 1_664, 16, 5))
    assert (await only(sys)).energy_microjoules == 123_456_789


@pytest.mark.parametrize(
    ("name", "content", "field", "reason"),
    [
        ("gpu_busy_percent", "101\n", "utilization_percent", "not understood"),
        ("gpu_busy_percent", "-1\n", "utilization_percent", "not understood"),
        ("gpu_busy_percent", "", "utilization_percent", "not understood"),
        ("mem_info_vram_used", "1e9\n", "memory_used_bytes", "not understood"),
        ("mem_info_vram_used", "9" * 20, "memory_used_bytes", "not understood"),
        ("hwmon/hwmon3/power1_cap", "much\n", "power_limit_milliwatts", "not understood"),
        ("hwmon/hwmon3/temp3_input", "hot\n", "memory_temperature_celsius", "not understood"),
        ("hwmon/hwmon3/temp3_input", "--5\n", "memory_temperature_celsius", "not understood"),
        ("ras/gfx_err_count", "ue: 2\n", "ecc_corrected", "gfx_err_count: not understood"),
        ("ras/gfx_err_count", "ue: 2\n", "ecc_uncorrected", "gfx_err_count: not understood"),
    ],
)
async def test_what_is_not_understood_is_absent(sys: Sys, name: str, content: str, field: str, reason: str) -> None:
    device = sys.put(0, BUS)
    (device / name).write_text(content)
    reading = await only(sys)
    assert getattr(reading, field) is None
    assert reading.absent[field].partition(": ")[2] == reason


async def test_errors_of_a_block_that_cannot_be_read_leave_no_partial_sum(sys: Sys) -> None:
    device = sys.put(0, BUS)
    (device / "ras" / "gfx_err_count").unlink()
    (device / "ras" / "gfx_err_count").mkdir()
    assert (await only(sys)).absent["ecc_corrected"] == "unknown: gfx_err_count: EISDIR"


@pytest.mark.parametrize(
    ("table", "hertz"),
    [
        ("0: 500Mhz *\n1: 1700Mhz\n", 500_000_000),
        ("S: 19Mhz *\n0: 615Mhz\n1: 800Mhz *\n", 800_000_000),
        ("0: 500Mhz\n1: 1700Mhz\n", None),
        ("0: fastMhz *\n", None),
        ("", None),
    ],
)
async def test_clocks_without_sensors_are_the_marked_level(sys: Sys, table: str, hertz: int | None) -> None:
    sys.put(0, BUS, files={**EDGE_CARD, "pp_dpm_sclk": table}, sensors={"name": "amdgpu\n"})
    assert (await only(sys)).sm_clock_hertz == hertz


async def test_a_temperature_without_labels_is_the_dies(sys: Sys) -> None:
    sys.put(0, BUS, sensors={"name": "amdgpu\n", "temp1_input": "33000\n"})
    reading = await only(sys)
    assert reading.temperature_celsius == 33.0
    assert reading.absent["memory_temperature_celsius"] == "not_supported: no such file"


async def test_sensors_of_something_else_on_the_card_are_not_its_own(sys: Sys) -> None:
    sys.put(0, BUS, sensors={**EDGE_SENSORS, "name": "spd5118\n"})
    assert (await only(sys)).absent["power_milliwatts"] == "not_supported: no sensors of amdgpu"


async def test_a_sleeping_card_is_left_asleep(sys: Sys) -> None:
    """Its values are not read at all: a read that would hang does not."""
    device = sys.put(0, BUS, files={**EDGE_CARD, "power/runtime_status": "suspended\n"})
    make_hang(device / "gpu_busy_percent")
    reading = await only(sys)
    assert values(reading) == {}
    assert reading.absent["power_milliwatts"] == "not_supported: the card is asleep"
    assert reading.gpu.memory_total_bytes == 68_702_699_520


async def test_processes_of_each_card(sys: Sys) -> None:
    sys.put(0, BUS)
    sys.put(1, OTHER)
    sys.put(2, "0000:c9:00.0")
    sys.put_nodes(gpu_7=128, gpu_9=129)
    sys.put_process(200, gpu_7=5, gpu_9=6)
    sys.put_process(30, gpu_7=4, gpu_9=0)
    sys.put_process(31, gpu_11=8)
    write(sys.kfd / "proc" / "self", {"vram_7": "1\n"})
    write(sys.kfd / "proc" / "40", {"vram_7": "?\n", "sdma_7": "3\n"})
    (sys.kfd / "proc" / "41" / "vram_7").mkdir(parents=True)
    first, second, third = (await look(sys)).readings
    assert first.processes == (GpuProcess(pid=30, memory_used_bytes=4), GpuProcess(pid=200, memory_used_bytes=5))
    assert second.processes == (GpuProcess(pid=200, memory_used_bytes=6),)
    assert third.processes is None
    assert third.absent["processes"] == "not_supported: the processes of this card are not listed"


async def test_a_card_nobody_uses_has_no_process_and_knows_it(sys: Sys) -> None:
    sys.put(0, BUS)
    sys.put_nodes(gpu_7=128)
    assert (await only(sys)).processes == ()


async def test_cards_that_come_and_go_are_seen(sys: Sys) -> None:
    source = AmdGpuSource(sys.root, deadline_seconds=60)
    assert (await source.look()).readings == ()
    device = sys.put(0, BUS)
    assert len((await source.look()).readings) == 1
    (device / "gpu_busy_percent").write_text("99\n")
    assert (await source.look()).readings[0].utilization_percent == 99.0
    (sys.drm / "card0" / "device").unlink()
    assert (await source.look()).readings == ()


async def returns(condition: Callable[[], bool]) -> None:
    """Wait, without a fixed time, for what a thread does."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


def looking() -> int:
    """How many threads look at cards; other tests' threads may end at any time."""
    return sum(thread.name == "jobtrail-amdgpu" for thread in threading.enumerate())


async def look_until_stuck(source: AmdGpuSource, *cards: str) -> GpuLook:
    """The look that left the last of these cards behind; what follows has time enough, as busy as the machine may be.

    On a busy machine a look's deadline may pass before it has come to the cards.
    """
    async with asyncio.timeout(60):
        got = await source.look()
        while source.stuck != cards:
            got = await source.look()
    source._deadline_seconds = 60.0
    return got


async def test_a_card_that_hangs_costs_its_own_values_and_one_deadline(sys: Sys) -> None:
    """The others are read at the next look; it is not asked again until its read returns, and then it is."""
    device = sys.put(0, BUS)
    sys.put(1, OTHER)
    make_hang(device / "mem_busy_percent")
    source = AmdGpuSource(sys.root, deadline_seconds=0.5)
    try:
        first, second = (await look_until_stuck(source, BUS)).readings
        assert first.gpu.gpu_id == BUS
        assert first.gpu.memory_total_bytes == 68_702_699_520
        assert values(first) == values(second) == {}
        assert first.absent["utilization_percent"] == "timeout: no answer within the deadline"
        assert second.absent["utilization_percent"] == "timeout: another card gave no answer"
        for _ in range(3):
            again = await source.look()
            assert again.seconds < 60.0
            assert values(again.readings[0]) == {}
            assert again.readings[1].utilization_percent == 37.0
        await returns(lambda: looking() == 1)
    finally:
        release(device / "mem_busy_percent")
    await returns(lambda: source.stuck == ())
    (device / "mem_busy_percent").unlink()
    (device / "mem_busy_percent").write_text("5\n")
    both = (await source.look()).readings
    assert [reading.utilization_percent for reading in both] == [37.0, 37.0]
    await returns(lambda: looking() == 0)


async def test_two_cards_that_hang_leave_two_threads_and_no_more(sys: Sys) -> None:
    devices = [sys.put(number, bus) for number, bus in enumerate((BUS, OTHER, "0000:c9:00.0"))]
    for device in devices[:2]:
        make_hang(device / "gpu_busy_percent")
    source = AmdGpuSource(sys.root, deadline_seconds=0.5)
    try:
        await look_until_stuck(source, BUS, OTHER)
        for _ in range(2):
            got = await source.look()
        assert source.stuck == (BUS, OTHER)
        await returns(lambda: looking() == 2)
        assert [reading.utilization_percent for reading in got.readings] == [None, None, 37.0]
    finally:
        for device in devices[:2]:
            release(device / "gpu_busy_percent")
    await returns(lambda: looking() == 0)


async def test_a_search_for_cards_that_hangs_is_a_problem_until_it_returns(sys: Sys) -> None:
    device = sys.put(0, BUS)
    make_hang(device / "vendor")
    source = AmdGpuSource(sys.root, deadline_seconds=0.1)
    try:
        for _ in range(2):
            got = await source.look()
            assert got.readings == ()
            assert (got.problem, got.detail) == ("hung", f"{sys.root}/class/drm: no answer within the deadline")
        assert source.stuck == ()
        assert looking() == 1
    finally:
        release(device / "vendor")
    await returns(lambda: looking() == 0)


async def test_a_look_that_is_cancelled_leaves_its_thread_and_the_next_does_not_ask_that_card(sys: Sys) -> None:
    device = sys.put(0, BUS)
    make_hang(device / "gpu_busy_percent")
    asked: list[int] = []  # the time is taken once for the look, and once more as the card is asked

    def clock_us() -> int:
        asked.append(42)
        return 42

    source = AmdGpuSource(sys.root, deadline_seconds=60, clock_us=clock_us)
    task = asyncio.create_task(source.look())
    await returns(lambda: len(asked) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    try:
        assert source.stuck == (BUS,)
        (reading,) = (await source.look()).readings
        assert reading.absent["utilization_percent"] == "timeout: no answer within the deadline"
    finally:
        release(device / "gpu_busy_percent")
    await returns(lambda: looking() == 0)


async def test_the_loop_turns_while_a_card_hangs(sys: Sys) -> None:
    device = sys.put(0, BUS)
    make_hang(device / "gpu_busy_percent")
    asked: list[int] = []

    def clock_us() -> int:
        asked.append(42)
        return 42

    task = asyncio.create_task(AmdGpuSource(sys.root, deadline_seconds=60, clock_us=clock_us).look())
    await returns(lambda: len(asked) == 2)
    try:
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
    finally:
        release(device / "gpu_busy_percent")
    assert (await task).readings[0].gpu.gpu_id == BUS
    await returns(lambda: looking() == 0)


def test_a_card_that_hangs_does_not_keep_the_program_from_ending(sys: Sys) -> None:
    make_hang(sys.put(0, BUS) / "gpu_busy_percent")
    program = """
import asyncio, pathlib, sys
from jobtrail.adapters.amdgpu import AmdGpuSource
source = AmdGpuSource(pathlib.Path(sys.argv[1]), deadline_seconds=0.1)
while not source.stuck:  # on a busy machine a look may end before it has come to the card
    asyncio.run(source.look())
print(*source.stuck)
"""
    command = [python.executable, "-c", program, str(sys.root)]
    ended = subprocess.run(
        command, env={"PYTHONPATH": "daemon"}, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == f"{BUS}\n"
    assert ended.stderr == ""
