"""Drivers that are missing, fail, hang or crash cost the values, never the daemon, and each is told apart."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pynvml
import pytest

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.source import AVOID_SECONDS, NO_DRIVER_DELAY_SECONDS, REOPEN_SECONDS, NvmlGpus
from jobtrail.domain.gpus import GpuLook
from tests.adapters.nvml_bench import Bench, bench, is_alive
from tests.daemon_process import wait_until
from tests.fake_nvml import board

SOON = 2.0  # a deadline for drivers that hang
SLACK = 15.0  # beyond a deadline: a loaded machine, and the end of a killed process; what hangs does so for a minute


def later(made: Bench) -> None:
    """Let all delays pass but the longest."""
    made.hours.now += NO_DRIVER_DELAY_SECONDS - 1


async def quick(made: Bench) -> GpuLook:
    """A look; fails where it takes much longer than its deadline."""
    began = time.monotonic()
    look = await made.gpus.look()
    assert time.monotonic() - began < SOON + SLACK
    return look


async def test_a_node_without_a_driver_starts_no_process(tmp_path: Path) -> None:
    gpus = NvmlGpus(root=tmp_path)
    for _ in range(3):
        look = await gpus.look()
        assert (look.problem, look.readings) == (words.NO_DRIVER, ())
        assert str(tmp_path) in (look.detail or "")
    assert gpus.started == 0
    await gpus.close()


@pytest.mark.parametrize("path", ["dev/nvidiactl", "proc/driver/nvidia/version"])
async def test_a_driver_without_its_library_is_asked_for_once_in_ten_minutes(tmp_path: Path, path: str) -> None:
    async with bench(tmp_path) as made:
        (made.driver.root / "dev/nvidiactl").unlink()
        (made.driver.root / path).parent.mkdir(parents=True, exist_ok=True)
        (made.driver.root / path).write_text("NVRM version: 575.57.08\n", encoding="utf-8")
        library = made.driver.directory / "libnvidia-ml.so.1"
        library.rename(library.with_suffix(".away"))
        assert await made.problem() == words.NO_LIBRARY
        made.hours.now += NO_DRIVER_DELAY_SECONDS - 1
        library.with_suffix(".away").rename(library)
        assert await made.problem() == words.NO_LIBRARY
        assert made.gpus.started == 1
        made.hours.now += 1
        await made.look()
        assert made.gpus.started == 2


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, words.DRIVER_NOT_LOADED),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, words.VERSION_MISMATCH),
        (pynvml.NVML_ERROR_NO_PERMISSION, words.DENIED),
        (pynvml.NVML_ERROR_UNKNOWN, words.DRIVER_ERROR),
    ],
)
async def test_what_keeps_nvml_from_opening_is_told_apart(tmp_path: Path, code: int, problem: str) -> None:
    async with bench(tmp_path) as made:
        made.driver.put({"error.nvmlInitWithFlags": code})
        look = await made.gpus.look()
        assert (look.problem, look.readings) == (problem, ())
        assert "nvmlInit" in (look.detail or "")
        assert made.gpus.child_pid is None


async def test_an_upgraded_driver_is_tried_at_once_and_not_after_the_delay(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        version = made.driver.root / "proc/driver/nvidia/version"
        version.parent.mkdir(parents=True)
        version.write_text("NVRM version: 575.57.08\n", encoding="utf-8")
        made.driver.put({"error.nvmlInitWithFlags": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH})
        assert await made.problem() == words.VERSION_MISMATCH
        made.driver.put({"error.nvmlInitWithFlags": None})
        assert await made.problem() == words.VERSION_MISMATCH  # the delay
        version.write_text("NVRM version: 580.65.06\n", encoding="utf-8")
        await made.look()


async def test_a_driver_that_goes_takes_the_reader_with_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.look()
        pid = made.gpus.child_pid
        assert pid is not None
        (made.driver.root / "dev/nvidiactl").unlink()
        assert await made.problem() == words.NO_DRIVER
        assert not is_alive(pid)
        (made.driver.root / "dev/nvidiactl").touch()
        await made.look()


async def test_a_reloaded_driver_costs_one_look(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.look()
        made.driver.set(generation=2, driver_version="580.65.06")
        assert await made.problem() == words.DRIVER_RELOADED
        later(made)
        assert (await made.one()).gpu.driver_version == "580.65.06"


async def test_versions_that_part_in_the_middle_end_the_reader(tmp_path: Path) -> None:
    """An upgrade under a running reader: only a new process loads the new library."""
    async with bench(tmp_path) as made:
        await made.look()
        made.driver.put({"error.nvmlDeviceGetFieldValues": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH})
        assert await made.problem() == words.VERSION_MISMATCH
        made.driver.put({"error.nvmlDeviceGetFieldValues": None})
        later(made)
        await made.look()
        assert made.gpus.started == 2


async def test_a_lost_gpu_has_no_values_and_the_others_have_theirs(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=3) as made:
        await made.look()
        made.driver.gpu(1, lost=1)
        first, lost, third = (await made.look()).readings
        assert lost.gpu.gpu_id == board(1)["uuid"]
        assert lost.absent == dict.fromkeys(words.ALL_VALUES, words.LOST)
        assert lost.power_milliwatts is None
        assert (first.power_milliwatts, third.power_milliwatts) == (100_000, 102_000)


async def test_a_lost_gpu_is_still_shown_by_a_reader_that_never_saw_it(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2) as made:
        await made.look()
        made.driver.gpu(1, lost=1)
        pid = made.gpus.child_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert await made.problem() == words.CRASHED
        later(made)
        for _ in range(2):
            look = await made.look()
            assert look.detail == "GPU 1 cannot be opened: lost"
            assert [reading.gpu.index for reading in look.readings] == [0, 1]
            assert look.readings[1].absent == dict.fromkeys(words.ALL_VALUES, words.LOST)


@pytest.mark.parametrize("lost_first", [True, False])
async def test_a_gpu_that_was_reset_is_found_again_after_a_minute(tmp_path: Path, *, lost_first: bool) -> None:
    """NVML is opened anew for it, by the same process, and not at every look."""
    async with bench(tmp_path, gpus=2) as made:
        if lost_first:
            await made.look()
            made.driver.gpu(1, lost=1)
        else:
            made.driver.put({"error.nvmlDeviceGetHandleByIndex_v2.1": pynvml.NVML_ERROR_RESET_REQUIRED})
        await made.look()
        pid = made.gpus.child_pid
        made.driver.set(log=1)
        made.hours.now += REOPEN_SECONDS - 1
        await made.look()
        assert "nvmlInitWithFlags" not in {name for name, _ in made.driver.calls()}
        made.driver.put({"gpu.1.lost": None, "error.nvmlDeviceGetHandleByIndex_v2.1": None})
        made.hours.now += 1
        look = await made.look()
        assert (look.detail, [reading.power_milliwatts for reading in look.readings]) == (None, [100_000, 101_000])
        assert "nvmlInitWithFlags" in {name for name, _ in made.driver.calls()}
        assert made.gpus.child_pid == pid
        made.hours.now += REOPEN_SECONDS
        await made.look()
        assert "nvmlInitWithFlags" not in {name for name, _ in made.driver.calls()}


async def test_a_gpu_this_process_may_not_open_is_named(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2) as made:
        made.driver.put({"error.nvmlDeviceGetHandleByIndex_v2.0": pynvml.NVML_ERROR_NO_PERMISSION})
        look = await made.look()
        assert look.detail == "GPU 0 cannot be opened: no_permission"
        assert [reading.gpu.index for reading in look.readings] == [1]


async def test_a_gpu_that_comes_or_goes_is_noticed(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2) as made:
        for count in (2, 1, 2):
            made.driver.set(count=count)
            assert len((await made.look()).readings) == count


async def test_a_call_that_hangs_is_named_and_then_left_out(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=3, deadline_seconds=SOON) as made:
        await opened(made)
        made.driver.put({"hang.nvmlDeviceGetTemperature.1": 60})
        pid = made.gpus.child_pid
        assert pid is not None
        look = await until_hung(made)
        assert "nvmlDeviceGetTemperature of GPU 1" in (look.detail or "")
        assert not is_alive(pid)
        later(made)
        made.hours.now -= AVOID_SECONDS / 2
        first, second, third = (await opened(made)).readings
        assert second.absent["temperature_celsius"] == words.TIMEOUT
        assert second.power_milliwatts == 101_000
        assert (first.temperature_celsius, third.temperature_celsius) == (30.0, 32.0)


async def test_a_gpu_of_which_two_calls_hang_is_left_out_and_shown(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2, deadline_seconds=SOON) as made:
        await opened(made)
        made.driver.put({"hang.nvmlDeviceGetTemperature.1": 60, "hang.nvmlDeviceGetClockInfo.1": 60})
        for call in ("nvmlDeviceGetTemperature", "nvmlDeviceGetClockInfo"):
            look = await until_hung(made)
            assert call in (look.detail or "")
            made.hours.now += AVOID_SECONDS / 4
        look = await opened(made)
        assert look.readings[1].gpu.gpu_id == board(1)["uuid"]
        assert look.readings[1].absent == dict.fromkeys(words.ALL_VALUES, words.TIMEOUT)
        assert look.readings[0].temperature_celsius == 30.0
        made.driver.without("hang.")
        made.hours.now += AVOID_SECONDS
        pid = made.gpus.child_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert (await made.gpus.look()).problem == words.CRASHED
        later(made)
        assert (await opened(made)).readings[1].temperature_celsius == 31.0


async def test_many_slow_calls_are_no_hanging_one(tmp_path: Path) -> None:
    """None of them is left out, and the reader goes on; what it found too late is not shown."""
    async with bench(tmp_path, gpus=16, deadline_seconds=4.0) as made:
        await opened(made)
        pid = made.gpus.child_pid
        made.driver.put({"hang.nvmlDeviceGetUtilizationRates": 0.35, "gpu.0.temperature": 55})
        look = await quick(made)
        assert (look.problem, look.readings) == (words.SLOW, ())
        made.driver.put({"hang.nvmlDeviceGetUtilizationRates": None, "gpu.0.temperature": 66})
        look = await opened(made)
        assert look.readings[0].temperature_celsius == 66.0
        assert {reason for reading in look.readings for reason in reading.absent.values()} <= {words.NO_INTERVAL}
        assert made.gpus.child_pid == pid


async def test_opening_may_take_several_looks_and_each_keeps_its_deadline(tmp_path: Path) -> None:
    async with bench(tmp_path, deadline_seconds=SOON) as made:
        made.driver.put({"hang.nvmlInitWithFlags": 2 * SOON})
        look = await quick(made)
        assert look.problem == words.STARTING
        pid = made.gpus.child_pid
        await opened(made)
        assert made.gpus.child_pid == pid
        assert made.gpus.started == 1


async def test_an_opening_that_hangs_is_ended(tmp_path: Path) -> None:
    async with bench(tmp_path, deadline_seconds=SOON) as made:
        made.driver.put({"hang.nvmlInitWithFlags": 60})
        async with asyncio.timeout(60):
            while "nvmlInit" not in ((await quick(made)).detail or ""):
                pass
        made.gpus._start_seconds = 0.5  # which are over, now that the reader was seen to hang
        look = await until_hung(made)
        assert "nvmlInit did not return" in (look.detail or "")
        assert made.gpus.child_pid is None


async def opened(made: Bench) -> GpuLook:
    """The first look with readings; until then the driver is being opened, or the machine is slow."""
    for _ in range(100):
        look = await quick(made)
        if look.problem is None:
            return look
        assert look.problem in {words.STARTING, words.SLOW}, (look.problem, look.detail)
    raise AssertionError("the driver was not opened in 100 looks")


async def until_hung(made: Bench) -> GpuLook:
    """The first look that ended a reader; until then the driver is being opened, or the machine is slow."""
    for _ in range(100):
        look = await quick(made)
        if look.problem == words.HUNG:
            return look
        assert look.problem in {words.STARTING, words.SLOW}, (look.problem, look.detail)
    raise AssertionError("no look found the reader hanging in 100 looks")


@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetUUID", "nvmlDeviceGetUtilizationRates"])
async def test_a_crashing_driver_costs_the_look_and_not_the_daemon(tmp_path: Path, call: str) -> None:
    async with bench(tmp_path) as made:
        made.driver.put({f"abort.{call}": 1})
        look = await made.gpus.look()
        assert (look.problem, look.readings) == (words.CRASHED, ())
        assert "SIGABRT" in (look.detail or "")
        made.driver.put({f"abort.{call}": None})
        later(made)
        assert (await made.one()).temperature_celsius == 30.0


async def test_restarts_come_at_growing_delays_and_in_between_nothing_is_started(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.driver.put({"abort.nvmlInitWithFlags": 1})
        delays = []
        for failures in range(1, 12):
            assert await made.problem() == words.CRASHED
            assert made.gpus.started == failures
            began = made.hours.now
            while made.gpus.started == failures:
                made.hours.now += 0.25 if failures < 6 else 10
                assert await made.problem() == words.CRASHED
                if made.gpus.started > failures:
                    delays.append(made.hours.now - began)
            if failures == 11:
                break
        assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
        assert delays == sorted(delays)
        assert 300 <= delays[-1] <= 320


async def test_a_failed_look_never_returns_earlier_values(tmp_path: Path) -> None:
    async with bench(tmp_path, deadline_seconds=SOON) as made:
        await opened(made)
        made.driver.put({"hang.nvmlDeviceGetCount_v2": 60})
        look = await until_hung(made)
        assert look.readings == ()
        assert "nvmlDeviceGetCount" in (look.detail or "")


async def test_a_look_that_was_cancelled_does_not_answer_the_next(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2) as made:
        await made.look()
        made.driver.put({"hang.nvmlDeviceGetUtilizationRates.1": 3, "gpu.0.temperature": 55})
        task = asyncio.create_task(made.gpus.look())
        calls = made.driver
        calls.set(log=1)
        await asyncio.to_thread(
            wait_until, lambda: ("nvmlDeviceGetUtilizationRates", 1) in calls.calls(), "the call that takes long"
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        made.driver.put({"hang.nvmlDeviceGetUtilizationRates.1": None, "log": None, "gpu.0.temperature": 66})
        began = time.time_ns() // 1000
        reading = await made.one()
        assert reading.temperature_celsius == 66.0
        assert reading.time_us >= began


async def test_looks_asked_for_at_once_are_each_answered(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        looks = await asyncio.gather(*(made.gpus.look() for _ in range(5)))
        assert [look.problem for look in looks] == [None] * 5
        assert made.gpus.started == 1


async def test_a_library_that_prints_does_not_disturb_the_answers(tmp_path: Path) -> None:
    """Neither does one that prints more than anybody keeps."""
    async with bench(tmp_path) as made:
        made.driver.set(chatter=100_000)
        for _ in range(3):
            assert (await made.one()).temperature_celsius == 30.0
