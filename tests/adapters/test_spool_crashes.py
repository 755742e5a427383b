"""Nothing acknowledged is lost to kills, power cuts and failing disks, and every acknowledgement waits for a flush.

A killed process cannot show a missing flush, because the page cache survives it. So the flushes are counted, and the
power is cut: the writer is stopped, the file below its file system is copied, and the copy is mounted. What was only in
the page cache is not in the copy, as after a power cut.
"""

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobtrail.domain.errors import SpoolBroken
from tests.adapters.spools import MIB, add, event, opened, verified
from tests.requirements import require_root, require_tool, unmet


@contextmanager
def writing(directory: Path, senders: int, count: int, *tracer: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that appends to the spool in `directory`; killed at the end if it still runs."""
    child = subprocess.Popen(
        [*tracer, sys.executable, "-m", "tests.adapters.spool_child", str(directory), str(senders), str(count)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def read_acks(child: subprocess.Popen[bytes], count: int) -> set[str]:
    """The first `count` acknowledged event ids."""
    assert child.stdout is not None
    acks: set[str] = set()
    while len(acks) < count:
        line = child.stdout.readline()
        assert line, f"the writer ended after {len(acks)} acknowledgements"
        acks |= _acks_in(line)
    return acks


def read_rest(child: subprocess.Popen[bytes]) -> set[str]:
    """The ids acknowledged since, up to the writer's end."""
    assert child.stdout is not None
    return _acks_in(child.stdout.read())


def _acks_in(output: bytes) -> set[str]:
    return {match[1].decode() for match in re.finditer(rb"^ack (\S+)$", output, re.MULTILINE)}


def seeded() -> random.Random:
    """Random draws that a failing test's captured output lets one repeat: JOBTRAIL_TEST_SEED=<seed>."""
    seed = int(os.environ.get("JOBTRAIL_TEST_SEED") or random.SystemRandom().randrange(2**32))
    sys.stderr.write(f"JOBTRAIL_TEST_SEED={seed}\n")
    return random.Random(seed)


async def test_kill_9_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Four kills at random moments, sixteen senders: every acknowledged event is there once, the chain verifies."""
    draw = seeded()
    acks: set[str] = set()
    for _ in range(4):
        with writing(tmp_path / "spool", 16, 1_000_000) as child:
            acks |= read_acks(child, draw.randrange(1, 1500))
            child.kill()
            acks |= read_rest(child)
        async with opened(tmp_path / "spool") as spool:
            held = await verified(spool)
            assert acks <= held.keys()
            assert not any("damaged" in notice for notice in spool.notices)


def traced(tmp_path: Path, senders: int, count: int) -> list[str]:
    """The writer's flushes and acknowledgements in the order of the kernel: `flush` and `ack`."""
    strace = require_tool("strace", "whether each acknowledgement waits for a flush")
    log = tmp_path / "strace"
    calls = "trace=fdatasync,fsync,write"
    tracer = (strace, "-f", "-y", "-qq", "-e", calls, "-e", "signal=none", "-s", "8", "-o", str(log))
    with writing(tmp_path / "spool", senders, count, *tracer) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        assert child.wait(60) == 0
    assert len(_acks_in(output)) == senders * count
    return list(_steps(log.read_text()))


def _steps(log: str) -> Iterator[str]:
    """A call that another thread interrupted counts where it returned, an acknowledgement where it began."""
    interrupted: set[str] = set()
    for line in log.splitlines():
        thread = line.split(" ", 1)[0]
        if re.search(r"f(data)?sync\(\d+<[^>]*spool\.db-wal>", line):
            if "unfinished" in line:
                interrupted.add(thread)
            elif line.rstrip().endswith("= 0"):
                yield "flush"
        elif re.search(r"f(data)?sync resumed>.*= 0$", line) and thread in interrupted:
            interrupted.discard(thread)
            yield "flush"
        elif re.search(r'write\(1<[^>]*>, "ack ', line):
            yield "ack"


def test_each_acknowledgement_follows_a_flush_of_its_own(tmp_path: Path) -> None:
    """One sender, twenty events: between any two acknowledgements the log was flushed (fdatasync(2) returned 0)."""
    steps = traced(tmp_path, 1, 20)
    assert steps.count("ack") == 20
    before = "ack"
    for step in steps:
        if step == "ack":
            assert before == "flush", "an acknowledgement without a flush before it"
        before = step


def test_events_that_wait_together_share_a_flush(tmp_path: Path) -> None:
    """Two hundred senders at once: far fewer flushes than events, and none of them acknowledged before the first."""
    steps = traced(tmp_path, 200, 1)
    first_ack = steps.index("ack")
    assert "flush" in steps[:first_ack]
    assert steps.count("ack") == 200
    assert 1 <= steps.count("flush") < 50


async def test_a_disk_that_fails_to_flush_is_never_acknowledged(tmp_path: Path) -> None:
    """The 30th flush gives EIO: the writer stops for good, and what it had acknowledged is there at the next start."""
    strace = require_tool("strace", "what happens when a flush fails")
    inject = ("-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=30")
    with writing(tmp_path / "spool", 4, 1_000_000, strace, *inject) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        assert child.wait(60) == 3
    assert b"broken SQLite: disk I/O error" in output
    acks = _acks_in(output)
    assert acks
    async with opened(tmp_path / "spool") as spool:
        assert acks <= (await verified(spool)).keys()


@pytest.mark.parametrize("name", ["spool.db", "spool.db-wal"])
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.replace(shutil.copy(path, f"{path}.x"), path)])
async def test_a_file_taken_away_breaks_the_spool(tmp_path: Path, name: str, harm: Callable[[Path], object]) -> None:
    """SQLite would go on writing into the deleted file: the event is not acknowledged, and the daemon is told."""
    async with opened(tmp_path / "spool") as spool:
        await add(spool, event())
        failure = asyncio.ensure_future(spool.failure())
        waiter = asyncio.ensure_future(spool.wait_beyond(99))
        harm(tmp_path / "spool" / name)
        with pytest.raises(SpoolBroken, match=rf"{name} (has gone|was replaced)"):
            await add(spool, event())
        assert isinstance(await asyncio.wait_for(failure, 60), SpoolBroken)
        with pytest.raises(SpoolBroken):
            await waiter
        with pytest.raises(SpoolBroken):
            await add(spool, event())


class LoopDisk:
    """An ext4 file system in a file, mounted; `cut` gives what a power cut would have left of it."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "disk.img"
        self.mounted = directory / "mounted"
        self.after = directory / "after"
        self.mounted.mkdir()
        self.after.mkdir()

    def make(self) -> None:
        for tool in ("mkfs.ext4", "mount", "umount"):
            require_tool(tool, "what a power cut leaves")
        with self.image.open("wb") as file:
            file.truncate(192 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
        done = subprocess.run(
            ["mount", "-o", "loop", str(self.image), str(self.mounted)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            unmet(f"no loop mounts here ({done.stderr.strip()}): power cuts cannot be simulated")

    def copy(self) -> Path:
        return Path(shutil.copyfile(self.image, self.image.with_suffix(".cut")))

    def mount_copy(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image.with_suffix(".cut")), str(self.after)], check=True)

    def unmount(self) -> None:
        for place in (self.after, self.mounted):
            if os.path.ismount(place):
                subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    require_root("mount file systems to cut their power")
    disk = LoopDisk(tmp_path)
    disk.make()
    try:
        yield disk
    finally:
        disk.unmount()


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_a_power_cut_loses_nothing_acknowledged(disk: LoopDisk, cut: int) -> None:
    """At a random moment under load the power goes: every acknowledged event is on the disk, the chain verifies."""
    with writing(disk.mounted / "spool", 8, 1_000_000) as child:
        acks = read_acks(child, seeded().randrange(50, 4000))
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        copy_of = disk.copy()
        child.kill()
        acks |= read_rest(child)
    assert copy_of.stat().st_size == disk.image.stat().st_size
    disk.mount_copy()
    async with opened(disk.after / "spool") as spool:
        held = await verified(spool)
        assert acks <= held.keys(), f"{len(acks - held.keys())} of {len(acks)} acknowledged events lost"
        assert not any("damaged" in notice for notice in spool.notices)
