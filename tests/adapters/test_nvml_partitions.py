"""Partitioned GPUs (MIG) and the errors a driver tells of (XID)."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from jobtrail.adapters.nvml import words
from jobtrail.domain.gpus import GpuProcess, GpuReading
from tests.adapters.nvml_bench import Bench, bench
from tests.fake_nvml import WHOLE, FakeDriver, metrics

PROFILE = f"profile.{pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE}"


def partition(
    driver: FakeDriver, gpu: int, number: int, *, gpu_instance: int, processors: int, compute: int = 0
) -> None:
    """Add an instance to a GPU in MIG mode."""
    driver.instance(
        gpu,
        number,
        uuid=f"MIG-{gpu}-{number}-{gpu_instance}",
        name="NVIDIA H100 80GB HBM3 MIG",
        gpu_instance=gpu_instance,
        compute_instance=compute,
        multiprocessors=processors,
        memory_total=10_000 + number,
        memory_used=100 + number,
        processes=f"{5000 + number}:7",
        **metrics(number),
    )


def partitioned(driver: FakeDriver, gpu: int = 0) -> None:
    """Two instances of a GPU, with a hole in their numbers."""
    driver.gpu(gpu, mig=1, utilization=None, **{PROFILE: 132})
    partition(driver, gpu, 0, gpu_instance=1, processors=60)
    partition(driver, gpu, 2, gpu_instance=5, processors=16)


async def ids(made: Bench) -> list[str]:
    return [reading.gpu.gpu_id for reading in (await made.look()).readings]


async def test_instances_are_gpus_with_a_parent_and_a_share(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2) as made:
        partitioned(made.driver)
        board, first, second, other = (await made.second()).readings
        assert board.gpu.parent_gpu_id is None
        assert board.energy_microjoules == 5_000_000_000_000
        assert board.absent["utilization_percent"] == words.NOT_SUPPORTED
        assert other.gpu.index == 1
        for instance, number, processors in ((first, 0, 60), (second, 2, 16)):
            assert instance.gpu.parent_gpu_id == board.gpu.gpu_id
            assert instance.gpu.share_of_parent == processors / 132
            assert instance.gpu.minor == board.gpu.minor
            assert instance.gpu.pci_bus_id == board.gpu.pci_bus_id
            assert instance.gpu.index == number
            assert instance.gpu.memory_total_bytes == 10_000 + number
            assert instance.memory_used_bytes == 100 + number
            assert instance.processes == (GpuProcess(pid=5000 + number, memory_used_bytes=7),)
            assert instance.utilization_percent == 90.5 - number / 8
            assert instance.sm_active_percent == 81.25 - number / 8


async def test_instances_bear_the_files_through_which_a_job_is_let_in(tmp_path: Path) -> None:
    """As gres.conf names them; the driver's list has instances that are not there, and other lines."""
    async with bench(tmp_path, gpus=1) as made:
        partitioned(made.driver)
        minors = made.driver.root / "proc/driver/nvidia-caps/mig-minors"
        minors.parent.mkdir(parents=True)
        minors.write_text(
            "config 1\nmonitor 2\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\ngpu0/gi5/access 48\n"
            "gpu1/gi5/ci0/access 200\nnonsense\n"
        )
        board, first, second = (reading.gpu for reading in (await made.second()).readings)
        assert (first.gpu_instance, first.compute_instance, first.capability_minors) == (1, 0, (12, 13))
        assert (second.gpu_instance, second.capability_minors) == (5, ())
        assert (board.gpu_instance, board.capability_minors) == (None, ())


async def test_without_the_drivers_list_instances_have_no_such_files(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=1) as made:
        partitioned(made.driver)
        _, first, _ = (reading.gpu for reading in (await made.second()).readings)
        assert (first.gpu_instance, first.capability_minors) == (1, ())


async def test_what_is_the_boards_is_absent_of_an_instance_and_never_asked(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        partitioned(made.driver)
        _, instance, _ = (await made.second()).readings
        has = {"memory_used_bytes", "processes", "utilization_percent", *words.PROFILING_VALUES}
        assert instance.absent == dict.fromkeys(set(words.ALL_VALUES) - has, words.NOT_SUPPORTED)
        made.driver.set(log=1)
        await made.look()
        calls = [name for name, _ in made.driver.calls()]
        assert calls.count("nvmlDeviceGetFieldValues") == 1


async def test_compute_instances_of_one_gpu_instance_share_its_profile_and_so_have_none(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.gpu(0, mig=1, **{PROFILE: 132})
        for number in (0, 1):
            partition(made.driver, 0, number, gpu_instance=3, compute=number, processors=30)
        _, first, second = (await made.look()).readings
        for instance in (first, second):
            assert instance.absent["sm_active_percent"] == words.NOT_SUPPORTED
            assert instance.absent["utilization_percent"] == words.NOT_SUPPORTED
            assert instance.gpu.share_of_parent == 30 / 132


@pytest.mark.parametrize("missing", ["profile", "multiprocessors"])
async def test_a_share_that_cannot_be_known_is_none(tmp_path: Path, missing: str) -> None:
    async with bench(tmp_path) as made:
        partitioned(made.driver)
        if missing == "profile":
            made.driver.gpu(0, **{PROFILE: None})
        else:
            made.driver.instance(0, 0, multiprocessors=None)
        _, instance, _ = (await made.look()).readings
        assert instance.gpu.share_of_parent is None
        assert instance.memory_used_bytes == 100


async def test_partitions_that_change_while_looking_are_found_anew(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        whole = ["GPU-00000000-0000-0000-0000-000000000000"]
        assert await ids(made) == whole
        pid = made.gpus.child_pid
        partitioned(made.driver)
        assert await ids(made) == [*whole, "MIG-0-0-1", "MIG-0-2-5"]
        made.driver.without("gpu.0.mig.2.")
        assert await ids(made) == [*whole, "MIG-0-0-1"]
        made.driver.without("gpu.0.mig.0.")
        partition(made.driver, 0, 0, gpu_instance=9, processors=132)  # another one in its place
        assert await ids(made) == [*whole, "MIG-0-0-9"]
        made.driver.gpu(0, mig=0)
        assert await ids(made) == whole
        assert made.gpus.child_pid == pid


def codes(reading: GpuReading) -> list[int]:
    return [event.code for event in reading.events]


async def test_events_are_told_once_by_the_gpu_they_happened_to(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2) as made:
        made.driver.put({"xid.1": f"1 13 {WHOLE} {WHOLE}"})  # before anybody looked
        before = await made.look()
        assert [codes(reading) for reading in before.readings] == [[], []]
        made.driver.put(
            {"xid.2": f"1 31 {WHOLE} {WHOLE}", "xid.3": f"0 79 {WHOLE} {WHOLE}", "xid.4": f"1 48 {WHOLE} {WHOLE}"}
        )
        after = await made.look()
        assert [codes(reading) for reading in after.readings] == [[79], [31, 48]]
        for reading in after.readings:
            assert all(before.time_us <= event.time_us <= reading.time_us for event in reading.events)
        assert [codes(reading) for reading in (await made.look()).readings] == [[], []]


async def test_an_event_of_an_instance_is_the_instances(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        partitioned(made.driver)
        await made.look()
        made.driver.put({"xid.1": "0 43 5 0", "xid.2": f"0 79 {WHOLE} {WHOLE}", "xid.3": "0 45 77 0"})
        board, first, second = (await made.look()).readings
        assert (codes(board), codes(first), codes(second)) == ([79, 45], [], [43])


async def test_a_gpu_that_tells_of_no_events_is_read_all_the_same(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2) as made:
        made.driver.gpu(0, event_types=None)
        made.driver.put({"log": 1})
        assert len((await made.look()).readings) == 2
        registered = [gpu for name, gpu in made.driver.calls() if name == "nvmlDeviceRegisterEvents"]
        assert registered == [1]
