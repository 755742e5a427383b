"""A reader of NVIDIA GPUs over the fake driver, and what tests ask about its process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from jobtrail.adapters.nvml.profiling import MIN_INTERVAL_SECONDS
from jobtrail.adapters.nvml.source import NvmlGpus
from jobtrail.domain.gpus import GpuLook, GpuReading
from tests.daemon_process import wait_until
from tests.fake_nvml import FakeDriver, library
from tests.requirements import require_tool


class Hours:
    """A steady clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """The fake driver, the real source over it, and its clock of delays."""

    def __init__(self, driver: FakeDriver, gpus: NvmlGpus, hours: Hours) -> None:
        self.driver = driver
        self.gpus = gpus
        self.hours = hours

    async def look(self) -> GpuLook:
        """A look that gave readings."""
        look = await self.gpus.look()
        assert look.problem is None, (look.problem, look.detail)
        return look

    async def one(self, index: int = 0) -> GpuReading:
        """The reading of one board."""
        look = await self.look()
        (reading,) = [
            reading for reading in look.readings if reading.gpu.index == index and reading.gpu.parent_gpu_id is None
        ]
        return reading

    async def problem(self) -> str:
        """The problem of a look that gave none."""
        look = await self.gpus.look()
        assert look.problem is not None
        assert look.readings == ()
        assert look.detail
        return look.problem

    async def second(self) -> GpuLook:
        """A look so long after another that there is an interval between them."""
        await self.look()
        await self.interval()
        return await self.look()

    async def interval(self) -> None:
        """Let so much time pass that a look has an interval to the one before."""
        soon = time.monotonic() + 1.5 * MIN_INTERVAL_SECONDS
        await asyncio.to_thread(wait_until, lambda: time.monotonic() > soon, "an interval to pass")


@contextlib.asynccontextmanager
async def bench(
    directory: Path,
    *,
    gpus: int = 1,
    old: bool = False,
    deadline_seconds: float = 60.0,
    start_seconds: float = 120.0,
    killed_seconds: float = 30.0,
) -> AsyncIterator[Bench]:
    """A bench in `directory`; the reader is closed afterwards.

    It waits longer than the daemon does: the reader is nice, and on a machine whose processors are all taken it starts,
    answers and ends only after seconds.
    """
    compiler = require_tool("gcc", "the reader of NVIDIA GPUs cannot be tested without the fake driver it builds")
    driver = FakeDriver(directory, library(compiler, old=old), gpus=gpus)
    hours = Hours()
    source = NvmlGpus(
        root=driver.root,
        library_directory=driver.directory,
        deadline_seconds=deadline_seconds,
        start_seconds=start_seconds,
        killed_seconds=killed_seconds,
        monotonic=hours,
    )
    try:
        yield Bench(driver, source, hours)
    finally:
        await source.close()


def is_alive(pid: int) -> bool:
    """Whether a process runs: it exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def children() -> list[int]:
    """Processes whose parent is this one, zombies included."""
    me, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(fields[1]) == me:
                    found.append(int(entry.name))
    return found


def open_descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes(pid: int) -> int:
    """What a process has in memory: Rss of proc_pid_smaps(5). VmRSS is inaccurate, by pages of each processor."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    (kib,) = [int(line.split()[1]) for line in lines if line.startswith("Rss:")]
    return kib * 1024
