"""What every GpuSource promises, held by the fake of the unit tests and the real ones alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from jobtrail.adapters.amdgpu import AmdGpuSource
from jobtrail.core.ports import GpuSource
from jobtrail.domain.gpus import GpuReading
from tests.adapters.amdgpu_trees import Sys
from tests.adapters.nvml_bench import bench
from tests.fake_nvml import FakeDriver
from tests.fakes import FakeClock
from tests.unit.gpu_world import Gpus, gpu

VALUES = frozenset(GpuReading.__struct_fields__) - {"gpu", "time_us", "events", "absent"}
COUNTERS = ("energy_microjoules", "ecc_corrected", "ecc_uncorrected", "nvlink_receive_bytes", "nvlink_transmit_bytes")


class World(Protocol):
    """A source over two GPUs, and the means to take their driver away and give it back."""

    source: GpuSource

    def fail(self) -> None:
        """The driver is gone."""
        ...

    def mend(self) -> None:
        """It is back."""
        ...


class FakeWorld:
    """In memory."""

    def __init__(self) -> None:
        self.fake = Gpus(FakeClock(), gpu("a", 0), gpu("b", 1))
        self.source: GpuSource = self.fake

    def fail(self) -> None:
        self.fake.problem = "no_driver"

    def mend(self) -> None:
        self.fake.problem = None


class NvidiaWorld:
    """The real reader, in its process, over the tests' driver library."""

    def __init__(self, source: GpuSource, driver: FakeDriver) -> None:
        self.source = source
        self.device = driver.root / "dev/nvidiactl"

    def fail(self) -> None:
        self.device.unlink()

    def mend(self) -> None:
        self.device.touch()


class AmdWorld:
    """The real reader over a tree of files."""

    def __init__(self, directory: Path) -> None:
        self.sys = Sys(directory / "sys")
        self.sys.put(0, "0000:03:00.0")
        self.sys.put(1, "0000:43:00.0")
        self.source: GpuSource = AmdGpuSource(self.sys.root, deadline_seconds=60)

    def fail(self) -> None:
        self.sys.drm.rename(self.sys.drm.with_name("drm.gone"))

    def mend(self) -> None:
        self.sys.drm.with_name("drm.gone").rename(self.sys.drm)


@pytest.fixture(params=["fake", "nvidia", "amd"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            yield FakeWorld()
        elif request.param == "amd":
            yield AmdWorld(tmp_path)
        else:
            made = await stack.enter_async_context(bench(tmp_path, gpus=2))
            yield NvidiaWorld(made.gpus, made.driver)


async def test_a_value_is_a_number_or_absent_with_a_reason(world: World) -> None:
    """And never both."""
    look = await world.source.look()
    assert (look.problem, len(look.readings)) == (None, 2)
    for reading in look.readings:
        held = msgspec.structs.asdict(reading)
        assert {name for name in VALUES if held[name] is None} == set(reading.absent)
        assert all(isinstance(reason, str) and reason for reason in reading.absent.values())
        assert reading.gpu.vendor == look.vendor


async def test_a_gpu_keeps_its_id_and_its_counters_do_not_fall(world: World) -> None:
    first, second = await world.source.look(), await world.source.look()
    assert [one.gpu.gpu_id for one in first.readings] == [one.gpu.gpu_id for one in second.readings]
    assert len({one.gpu.gpu_id for one in first.readings}) == 2
    assert second.time_us >= first.time_us
    for before, after in zip(first.readings, second.readings, strict=True):
        for name in COUNTERS:
            was, now = getattr(before, name), getattr(after, name)
            assert was is None or now is None or now >= was


async def test_without_its_driver_a_look_says_so_and_gives_nothing(world: World) -> None:
    """It does not raise, and the next look after the driver's return gives the same GPUs."""
    known = [one.gpu.gpu_id for one in (await world.source.look()).readings]
    world.fail()
    look = await world.source.look()
    assert look.readings == ()
    assert look.problem
    world.mend()
    assert [one.gpu.gpu_id for one in (await world.source.look()).readings] == known


async def test_after_closing_a_look_begins_anew(world: World) -> None:
    """Closing twice does no harm."""
    known = [one.gpu.gpu_id for one in (await world.source.look()).readings]
    await world.source.close()
    await world.source.close()
    assert [one.gpu.gpu_id for one in (await world.source.look()).readings] == known


async def test_two_looks_at_once_are_both_answered(world: World) -> None:
    one, other = await asyncio.gather(world.source.look(), world.source.look())
    assert len(one.readings) == len(other.readings) == 2
