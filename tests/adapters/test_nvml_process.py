"""The reader as a process: small, alone in its group, gone with its parent, and nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.reader import NICENESS
from jobtrail.adapters.nvml.source import NO_DRIVER_DELAY_SECONDS, SLOW_LOOKS
from tests.adapters.nvml_bench import Bench, bench, children, is_alive, open_descriptors, resident_bytes
from tests.daemon_process import REPOSITORY, wait_until
from tests.fake_nvml import FakeDriver, library
from tests.requirements import require_root, require_tool, unmet

LIMIT_BYTES = 20_000_000
FREEZER = Path("/sys/fs/cgroup/freezer")

PARENT = """
import asyncio, sys
from pathlib import Path
from jobtrail.adapters.nvml.source import NvmlGpus

async def main():
    gpus = NvmlGpus(root=Path(sys.argv[1]), library_directory=Path(sys.argv[2]), deadline_seconds=600)
    look = asyncio.create_task(gpus.look())
    while gpus.child_pid is None:
        await asyncio.sleep(0)
    print(gpus.child_pid, flush=True)
    print((await look).problem, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@contextmanager
def parent(driver: FakeDriver) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process with a reader of its own, and the reader's process id."""
    path = os.pathsep.join((str(REPOSITORY / "daemon"), os.environ.get("PYTHONPATH", "")))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(driver.root), str(driver.directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def made(directory: Path) -> FakeDriver:
    return FakeDriver(directory, library(require_tool("gcc", "the fake driver is built with it")))


def test_the_reader_ends_with_a_killed_parent(tmp_path: Path) -> None:
    with parent(made(tmp_path)) as (process, pid):
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "None"
        process.kill()
        wait_until(lambda: not is_alive(pid), "the reader to end")


def test_a_reader_that_hangs_in_the_driver_ends_with_a_killed_parent(tmp_path: Path) -> None:
    driver = made(tmp_path)
    driver.put({"hang.nvmlInitWithFlags": 600, "log": 1})
    with parent(driver) as (process, pid):
        wait_until(lambda: driver.calls() == [("nvmlInitWithFlags", -1)], "the reader to hang")
        process.kill()
        wait_until(lambda: not is_alive(pid), "the reader to end")


def test_every_call_of_the_driver_is_told_once_however_often_one_asks(tmp_path: Path) -> None:
    """Of the fake driver itself: other tests wait for a call that is made once."""
    driver, calls = made(tmp_path), 5000
    driver.set(log=1)
    loop = f"import ctypes, sys\nnvml = ctypes.CDLL(sys.argv[1])\nfor _ in range({calls}): nvml.nvmlInitWithFlags(0)"
    told: list[tuple[str, int]] = []
    with subprocess.Popen([sys.executable, "-c", loop, str(driver.directory / "libnvidia-ml.so.1")]) as process:
        while process.poll() is None:
            told += driver.calls()
    assert process.returncode == 0
    assert [*told, *driver.calls()] == [("nvmlInitWithFlags", -1)] * calls


async def test_closing_lets_the_driver_go_and_a_later_look_begins_anew(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=2) as it:
        await it.second()
        it.driver.set(log=1)
        first = it.gpus.child_pid
        assert first is not None
        await it.gpus.close()
        assert not is_alive(first)
        calls = [name for name, _ in it.driver.calls()]
        assert calls.count("nvmlGpmSampleFree") == 4
        assert calls[-1] == "nvmlShutdown"
        await it.gpus.close()  # again, with nothing open
        await it.look()
        assert it.gpus.child_pid not in {None, first}


async def test_closing_does_not_wait_for_a_driver_that_hangs(tmp_path: Path) -> None:
    async with bench(tmp_path, deadline_seconds=0.3) as it:
        it.driver.put({"hang.nvmlInitWithFlags": 600})
        assert await it.problem() == words.STARTING
        pid = it.gpus.child_pid
        assert pid is not None
        began = time.monotonic()
        await it.gpus.close()
        assert time.monotonic() - began < 20
        assert not is_alive(pid)


async def test_the_reader_is_small_and_stays_so(tmp_path: Path) -> None:
    async with bench(tmp_path, gpus=64) as it:
        for index in range(64):
            it.driver.gpu(index, processes=",".join(f"{pid}:1000" for pid in range(1000, 1010)))
        await it.second()
        assert it.gpus.child_pid is not None
        before = resident_bytes(it.gpus.child_pid)
        assert before <= LIMIT_BYTES
        for _ in range(100):
            await it.look()
        assert resident_bytes(it.gpus.child_pid) - before < 500_000


async def test_the_reader_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.look()
        mapped = Path(f"/proc/{it.gpus.child_pid}/maps").read_text(encoding="utf-8")
        assert "libnvidia-ml.so.1" in mapped
        assert "msgspec" not in mapped
        assert "_asyncio" not in mapped


async def test_the_reader_has_its_own_group_and_nothing_of_the_daemons(tmp_path: Path) -> None:
    os.environ["JOBTRAIL_TEST_SECRET"] = "canary"
    kept = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        async with bench(tmp_path) as it:
            await it.look()
            pid = it.gpus.child_pid
            assert pid is not None
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
            names = {entry.partition("=")[0] for entry in environment.split("\0") if entry}
            assert names == {"PYTHONPATH", "LC_ALL", "LD_LIBRARY_PATH"}
            assert "canary" not in environment
            assert os.getpgid(pid) == os.getsid(pid) == pid
            niceness = os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
            assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, niceness)  # which is the most, setpriority(2)
            assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")
            # Connection, a copy of it for answers, standard error, and the marks.
            assert len(os.listdir(f"/proc/{pid}/fd")) <= 6
            limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
            assert ["Max", "core", "file", "size", "0", "0", "bytes"] in [line.split() for line in limits.splitlines()]
    finally:
        del os.environ["JOBTRAIL_TEST_SECRET"]
        os.close(kept)


async def test_nothing_is_left_of_hundreds_of_readers(tmp_path: Path) -> None:
    """Killed, crashed, refused and closed in turn."""
    async with bench(tmp_path) as it:
        await it.look()
        await it.gpus.close()
        gc.collect()
        descriptors, processes = open_descriptors(), sorted(children())
        for turn in range(200):
            it.driver.put({"abort.nvmlInitWithFlags": 1 if turn % 4 == 1 else None})
            it.driver.put({"error.nvmlInitWithFlags": 18 if turn % 4 == 2 else None})
            look = await it.gpus.look()
            assert (look.problem is None) == (turn % 4 in {0, 3})
            if turn % 4 == 0:
                assert it.gpus.child_pid is not None
                os.kill(it.gpus.child_pid, signal.SIGKILL)
                assert await it.problem() == words.CRASHED
            elif turn % 4 == 3:
                await it.gpus.close()
            it.hours.now += NO_DRIVER_DELAY_SECONDS
        await it.gpus.close()
        gc.collect()
        assert it.gpus.started >= 200
        assert open_descriptors() == descriptors
        assert sorted(children()) == processes
        assert len(asyncio.all_tasks()) == 1


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that even SIGKILL does not end, as one that waits in a driver: the freezer of cgroup v1 holds it."""
    require_root("only root can freeze a process")
    if not (FREEZER / "cgroup.procs").exists():
        unmet(f"{FREEZER} is not mounted: no process can be made that SIGKILL does not end")
    group = FREEZER / f"jobtrail-test-{pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
        (group / "freezer.state").write_text("FROZEN", encoding="ascii")
        wait_until(lambda: (group / "freezer.state").read_text(encoding="ascii").strip() == "FROZEN", "the freezer")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED", encoding="ascii")
        wait_until(lambda: not (group / "cgroup.procs").read_text(encoding="ascii").strip(), "the group to be empty")
        group.rmdir()


async def opened(it: Bench) -> None:
    """Look until there are readings: the reader is being started, or the one before was not seen to end yet."""
    async with asyncio.timeout(60):
        while (problem := (await it.gpus.look()).problem) is not None:
            assert problem in {words.STARTING, words.SLOW, words.STUCK}


async def test_a_reader_that_cannot_be_killed_is_not_joined_by_another(tmp_path: Path) -> None:
    async with bench(tmp_path, deadline_seconds=1.0, killed_seconds=0.5) as it:
        await opened(it)
        pid = it.gpus.child_pid
        assert pid is not None
        with frozen(pid):
            assert [await it.problem() for _ in range(SLOW_LOOKS)] == [words.SLOW, words.SLOW, words.STUCK]
            for _ in range(3):
                it.hours.now += NO_DRIVER_DELAY_SECONDS
                began = time.monotonic()
                look = await it.gpus.look()
                assert look.problem == words.STUCK
                assert str(pid) in (look.detail or "")
                assert time.monotonic() - began < 20
            assert it.gpus.started == 1
        wait_until(lambda: not is_alive(pid), "the reader to end")
        it.hours.now += NO_DRIVER_DELAY_SECONDS
        await opened(it)
        assert it.gpus.started == 2
        assert not [child for child in children() if child == pid]
