"""Faults that the daemon must go through unharmed, and its broken builds must not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.conftest import NewTrial
from tests.faults.disks import LoopDisk
from tests.faults.trial import FaultDaemon, Trial


def kill_under_load(trial: Trial, kills: int) -> None:
    """Kill it so often: at first under 32 clients without a break, then under a few with breaks.

    A fifth of the events is sent by up to four clients at once, each until it is acknowledged. The breaks matter: in a
    stream without one, what was acknowledged too early is soon committed by what follows it.
    """
    for share, load in ((kills // 2, {"clients": 32, "copies": 4}), (kills - kills // 2, {"clients": 3, "pause": 0.2})):
        with trial.producing(**load):
            for _ in range(share):
                trial.await_acknowledgements(trial.draw.randrange(1, 12 * load["clients"]))
                trial.kill()
                trial.revive()
            trial.await_acknowledgements(load["clients"])


def kill_upon_answers(trial: Trial, kills: int) -> None:
    """Kill it so often at the very moment at which its only client has its answer, so that nothing more commits it."""
    for _ in range(kills):
        assert trial.send(trial.fresh_job()[0]) == [201]
        trial.kill()
        trial.revive()


@contextmanager
def kills_without_database(
    new_trial: NewTrial, place: Path, database: str, kills: int, source: Path | None = None
) -> Iterator[Trial]:
    """Kills under load and as many upon an answer, while nothing but the node's disk can keep an event.

    Then everything is forwarded.
    """
    with new_trial(daemon=FaultDaemon(place / "d", source=source)) as trial:
        kill_under_load(trial, kills)
        kill_upon_answers(trial, kills)
        trial.kill()
        trial.daemon.configure("database", url=database)
        trial.revive()
        yield trial


def start_second(trial: Trial, source: Path | None = None) -> tuple[int, str]:
    """Start another daemon on the trial's spool: the status it ended with and what it logged."""
    other = FaultDaemon(
        trial.directory / "second", source=source, spool_at=trial.daemon.spool, database={"url": trial.url}
    )
    try:
        return other.launch().wait(60), other.tail()
    finally:
        if other.pid is not None:
            other.kill()


@contextmanager
def two_at_once(new_trial: NewTrial, place: Path, database: str, source: Path | None = None) -> Iterator[Trial]:
    """Two daemons are started on one spool, and each that takes events is given some, in turn; then one forwards all.

    Nothing but the node's disk can keep an event meanwhile. The trial's figure `at_once` is how many took events.
    """
    with new_trial(daemon=FaultDaemon(place / "d", source=source)) as trial:
        other = FaultDaemon(place / "other", source=source, spool_at=trial.daemon.spool)
        try:
            both = other.try_start()
            sockets = [trial.daemon.socket, *([other.socket] if both else [])]
            for socket in sockets * 3:
                events = [event for _ in range(10) for event in trial.fresh_job()]
                assert trial.send(*events, socket=socket) == [201] * len(events)
        finally:
            if other.pid is not None:
                other.kill()
        trial.figures.set(at_once=len(sockets))
        trial.kill()
        trial.daemon.configure("database", url=database)
        trial.revive()
        yield trial


@contextmanager
def power_cuts(
    new_trial: NewTrial, place: Path, database: str, cuts: int, source: Path | None = None
) -> Iterator[Trial]:
    """So many power cuts under load, then everything forwarded. The trial; its disk is there as long as the block.

    While the power is cut no database is there, so that nothing but the node's disk can keep an event.
    """
    disk = LoopDisk(place, size_mib=512)
    try:
        daemon = FaultDaemon(
            place / "d", source=source, spool_at=disk.mounted / "spool", spool={"max_bytes": 256 * 2**20}
        )
        with new_trial(daemon=daemon) as trial:
            with trial.producing(clients=16, copies=3):
                for _ in range(cuts):
                    trial.await_acknowledgements(trial.draw.randrange(1, 600))
                    cut_power(trial, disk)
                    trial.revive()
            trial.kill()
            daemon.configure("database", url=database)
            trial.revive()
            yield trial
    finally:
        disk.close()


def cut_power(trial: Trial, disk: LoopDisk) -> None:
    """Stop the daemon where it is, take the disk as a power cut would leave it, and go on from that."""
    assert trial.daemon.pid is not None
    os.kill(trial.daemon.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, trial.daemon.pid, os.WSTOPPED | os.WNOWAIT)
    after = disk.cut()
    trial.daemon.kill()
    disk.reboot_with(after)
    trial.figures.add(cuts=1)
