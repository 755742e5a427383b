"""T-04, T-05, T-10: a spool that is damaged, one with a large backlog, one on a full disk, one that was set back."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon_process import REPOSITORY, wait_until
from tests.faults.conftest import NewTrial
from tests.faults.disks import small_file_system
from tests.faults.figures import Figures, often
from tests.faults.trial import FaultDaemon, Trial
from tests.postgres import TEMPLATE, PostgresServer

MIB = 2**20


@pytest.mark.fault("T-04")
def test_a_damaged_spool_file(
    new_trial: NewTrial, place: Path, postgres_server: PostgresServer, figures: Figures, draw: random.Random
) -> None:
    """Bits flipped, ends cut off: the daemon starts at once, saves what is whole, and shows nothing that is not.

    Each damage gets a database of its own. What could not be saved, the log tells: never is an event lost in silence.
    """
    pristine = place / "pristine"
    with new_trial("p", daemon=FaultDaemon(pristine)) as filled:
        for _ in range(60):
            assert filled.send(*filled.fresh_job()) == [201, 201]
    before = shutil.copytree(pristine / "spool", place / "before")
    saved = lost = damages = 0
    for number in range(often(quick=5, full=60)):
        shutil.rmtree(pristine / "spool")
        shutil.copytree(before, pristine / "spool")
        harm(pristine / "spool", draw, number)
        name = postgres_server.create_database(TEMPLATE)
        daemon = FaultDaemon(pristine, database={"url": postgres_server.url(name)})
        with new_trial(f"t{number}", daemon=daemon, url=postgres_server.url(name)) as trial:
            trial.oracles += filled.oracles
            assert trial.send(*trial.fresh_job()) == [201, 201]
            trial.settle()
            found = trial.judge()
            assert not any(found[name] for name in ("duplicated", "invented", "altered", "broken", "conflicts"))
            assert not found["lost"] or "damaged" in daemon.log.read_text(), f"{len(found['lost'])} lost in silence"
            damages, saved, lost = damages + 1, saved + found["stored"], lost + len(found["lost"])
        postgres_server.drop_database(name)
    figures.set(damages=damages, saved=saved, not_saved=lost, undetected=0)


def harm(spool: Path, draw: random.Random, number: int) -> None:
    """Flip a few bits of the file, or cut it off; its log was folded into it first, so that all events are in it."""
    with sqlite3.connect(spool / "spool.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path = spool / "spool.db"
    size = path.stat().st_size
    if number % 3 == 2:
        os.truncate(path, draw.randrange(1, size // 512) * 512)
        return
    with path.open("r+b") as file:
        for _ in range(draw.randint(1, 8)):
            offset = draw.randrange(size)
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1 << draw.randrange(8)]))


FILL = """
import asyncio, sys, pathlib, hashlib, uuid, time
from jobtrail.adapters.spool import SqliteSpool
from jobtrail.adapters.clock import SystemClock
from jobtrail.domain.events import Actor, Event, EventKind
async def main(directory, count):
    async with SqliteSpool.opened(pathlib.Path(directory), node="n1", max_bytes=1 << 30, keep_forwarded_us=10**13,
                                  clock=SystemClock()) as spool:
        async def one(number):
            kind = EventKind.JOB_FINISHED if number % 2 else EventKind.JOB_STARTED
            event = Event(kind=kind, event_id=str(uuid.uuid4()), time_us=time.time_ns() // 1000 + number, cluster="lab",
                          job_id=f"slurm-{3_000_000_000 + number // 2}", node="n1", changed_by=Actor.COLLECTOR,
                          source="backlog", note="x" * 900)
            await spool.append(event, hashlib.sha256(event.event_id.encode()).digest())
        for first in range(0, count, 250):
            await asyncio.gather(*(one(first + n) for n in range(250)))
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.fault("T-05")
def test_a_backlog_is_not_loaded_into_memory(new_trial: NewTrial, place: Path, figures: Figures) -> None:
    """What a start needs of memory does not grow with what waits: else an OOM kill would come back at every start."""
    peaks = {}
    for events in (0, often(quick=12_000, full=250_000)):
        daemon = FaultDaemon(place / f"d{events}", spool={"max_bytes": 1 << 30})
        daemon.spool.mkdir(mode=0o700, parents=True)
        if events:
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "daemon")}
            subprocess.run([sys.executable, "-c", FILL, str(daemon.spool), str(events)], check=True, env=environment)
        with new_trial(f"t{events}", daemon=daemon) as trial:
            for _ in range(3):  # a kill for memory, and the start after it
                trial.kill()
                trial.revive()
            assert trial.send(*trial.fresh_job()) == [201, 201]
            backlog = (daemon.spool / "spool.db").stat().st_size
            peaks[backlog] = peak_of(trial)
    (small, least), (large, most) = sorted(peaks.items())
    figures.set(backlog_mib=large // MIB, start_peak_mib=most // MIB, start_peak_empty_mib=least // MIB)
    assert large > 10 * MIB > small
    assert most - least < 24 * MIB


def peak_of(trial: Trial) -> int:
    """The most memory the process had at once, bytes (VmHWM, proc(5))."""
    status = Path(f"/proc/{trial.daemon.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


@pytest.mark.fault("T-10")
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk(new_trial: NewTrial, place: Path, database: str, kind: str) -> None:
    """Others fill the disk: no event is acknowledged that is not held, and all is taken again once there is room.

    Then the events themselves fill it while there is no database, and the spool drains by itself once there is one.
    """
    with small_file_system(place, kind, often(quick=12, full=48)) as disk:
        daemon = FaultDaemon(place / "d", spool_at=disk / "spool", spool={"max_bytes": 8 * MIB})
        with new_trial(daemon=daemon) as trial:
            trial.send(*trial.fresh_job())
            others = fill(disk, leave_bytes=256 * 1024)
            refused = until_refused(trial)
            others.unlink()
            wait_until(lambda: trial.send(*trial.fresh_job()) == [201, 201], "events to be taken again")
            others = fill(disk, leave_bytes=often(quick=MIB, full=16 * MIB))
            refused += until_refused(trial)
            trial.kill()
            daemon.configure("database", url=database)
            trial.revive()
            trial.settle()
            wait_until(lambda: trial.send(*trial.fresh_job()) == [201, 201], "events to be taken after the drain")
            trial.figures.set(refused=refused, file_system=kind)
            found = trial.check()
            assert found["shed"].get("events_refused", 0) <= refused


def fill(disk: Path, *, leave_bytes: int) -> Path:
    """A file of somebody else's that leaves so much of the file system."""
    file = disk / "others"
    with file.open("wb") as opened:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        os.posix_fallocate(opened.fileno(), 0, free - leave_bytes)
    return file


def until_refused(trial: Trial) -> int:
    """Send until ten events in a row are refused; each refusal is a 503, never silence. How many were."""
    refused = 0
    for _ in range(5_000):
        statuses = trial.send(*(trial.fresh_job()[0] for _ in range(10)))
        assert set(statuses) <= {201, 503}
        refused += statuses.count(503)
        if statuses == [503] * 10:
            return refused
    raise AssertionError("the disk never filled")


@pytest.mark.fault("T-22")
def test_a_spool_that_was_set_back(trial: Trial) -> None:
    """A snapshot of the node is restored: the database knows more of the chain than the node.

    The daemon tells it, gives the chain up and goes on with a new one; nothing that was acknowledged is lost, neither
    what only the database has nor what came after.
    """
    assert trial.send(*trial.fresh_job()) == [201, 201]
    trial.settle()
    trial.kill()
    snapshot = trial.directory / "snapshot"
    shutil.copytree(trial.daemon.spool, snapshot)
    trial.revive()
    for _ in range(20):
        assert trial.send(*trial.fresh_job()) == [201, 201]
    trial.settle()
    trial.kill()
    shutil.rmtree(trial.daemon.spool)
    snapshot.rename(trial.daemon.spool)
    process = trial.daemon.start().process
    assert process is not None
    assert trial.send(*trial.fresh_job()) == [201, 201]
    assert process.wait(60) == 1
    assert "the spool was set back" in trial.daemon.log.read_text()
    trial.revive()
    trial.settle()
    found = trial.check(forks=True)
    assert found["chains"] == 2
    assert found["conflicts"]  # what this node said under numbers that the database knows from before is on record
    trial.figures.set(chains=2)
