"""Which readers of GPUs a daemon has: by its settings, and by the drivers that are there."""

from pathlib import Path

import msgspec
import pytest

from jobtrail.adapters.nvml import words
from jobtrail.adapters.telemetry import GPU_ABSENT_REASONS, GPU_PROBLEMS, GPU_VENDORS
from jobtrail.composition.gpu_role import WhereThere, amd_is_there, make_gpu_parts, nvidia_is_there
from jobtrail.config import Config, Energy, GpuSettings
from jobtrail.core.gpu.sources import NO_GPUS
from jobtrail.core.gpu.watch import GpuWatch
from jobtrail.domain.gpus import GpuLook
from tests.unit.sampling import Bench


class Counting:
    """A GpuSource that counts."""

    def __init__(self) -> None:
        self.looks = 0
        self.closed = 0

    async def look(self) -> GpuLook:
        self.looks += 1
        return GpuLook(vendor="nvidia", time_us=1)

    async def close(self) -> None:
        self.closed += 1


async def test_a_source_is_asked_only_where_its_driver_is(tmp_path: Path) -> None:
    """And as soon as it is there."""
    source = Counting()
    where = WhereThere("nvidia", source, lambda: nvidia_is_there(tmp_path))
    assert (await where.look()).problem == NO_GPUS
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert (await where.look()).problem is None
    await where.close()
    assert (source.looks, source.closed) == (1, 1)


def test_the_driver_in_proc_is_enough(tmp_path: Path) -> None:
    """A node on which nothing has opened a GPU yet has no device files."""
    assert not nvidia_is_there(tmp_path)
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    assert nvidia_is_there(tmp_path)


@pytest.mark.parametrize(("vendor", "expected"), [("0x1002", True), ("0x8086", False), (None, False)])
def test_amd_is_there_where_a_card_is_its(tmp_path: Path, vendor: str | None, expected: bool) -> None:
    """Connectors of a card, and cards of others, are none."""
    assert not amd_is_there(tmp_path)
    for name in ("card0", "card0-DP-1", "renderD128", "version"):
        (tmp_path / "sys/class/drm" / name / "device").mkdir(parents=True)
    if vendor is not None:
        (tmp_path / "sys/class/drm/card0/device/vendor").write_text(f"{vendor}\n")
    assert amd_is_there(tmp_path) is expected


def made(**changes: object) -> GpuWatch | None:
    """The watch of a daemon with these settings."""
    bench = Bench()
    config = msgspec.structs.replace(Config(), **changes)
    parts = make_gpu_parts(
        config,
        sampler=bench.sampler,
        board=bench.board,
        sink=None,
        energy_sink=None,
        clock=bench.clock,
        tell=bench.facts,
    )
    return None if parts is None else parts.watch


def test_a_daemon_that_reads_neither_has_no_watch() -> None:
    """Nor has one that is no node."""
    nothing = GpuSettings(vendors="none")
    assert made(gpu=nothing, energy=Energy(rapl=False)) is None
    assert made(roles=("server",)) is None
    assert made(gpu=nothing) is not None
    assert made(gpu=GpuSettings(vendors=("amd",)), energy=Energy(rapl=False)) is not None
    assert made() is not None


def test_the_reasons_counted_are_those_the_reader_gives() -> None:
    """A new word of the reader would be counted as another reason."""
    assert set(GPU_PROBLEMS) == set(words.PROBLEMS)
    assert set(GPU_ABSENT_REASONS) == set(words.REASONS)
    assert GPU_VENDORS == ("nvidia", "amd")
