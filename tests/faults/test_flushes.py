"""T-12 and T-13: flushes that fail, and flushes that take long. A library before libc's own makes them so."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.daemon_process import wait_until
from tests.faults.conftest import NewTrial
from tests.faults.figures import often, percentile
from tests.faults.trial import FaultDaemon, Trial
from tests.requirements import require_tool

EVENTS = 10
CLIENTS = 32
STOP_SECONDS = 60.0


@pytest.fixture
def library(place: Path) -> Path:
    """The library, built."""
    compiler = require_tool("gcc", "how flushes fail")
    built = place / "flush_faults.so"
    source = Path(__file__).with_name("flush_faults.c")
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o", str(built), str(source),
                    "-ldl"], check=True)  # fmt: skip
    return built


def live_with(trial: Trial, **faults: str) -> tuple[list[float], list[tuple[float, str]]]:
    """A life of the daemon with faults and one client: when events were acknowledged, and when which flush failed.

    The client sends prologs one after another, so nothing but the event in flight is being written.
    """
    log = trial.directory / "faults.log"
    log.unlink(missing_ok=True)
    trial.daemon.more_environment = {**faults, "FAULT_LOG": str(log)}
    acknowledged: list[float] = []
    try:
        trial.daemon.start()
        for _ in range(EVENTS):
            if trial.send(trial.fresh_job()[0]) == [201]:
                acknowledged.append(time.time())
    except (OSError, EOFError, AssertionError):  # it ended, while it started or while it served
        assert log.exists(), trial.daemon.tail()
    finally:
        trial.daemon.more_environment = {}
    failed = [line.split(" ", 1) for line in log.read_text().splitlines()] if log.exists() else []
    return acknowledged, [(float(at), path) for at, path in failed]


@pytest.mark.fault("T-12")
def test_a_flush_that_fails_is_never_acknowledged(
    new_trial: NewTrial, place: Path, database: str, library: Path, draw: random.Random
) -> None:
    """The Nth flush fails, once or from then on; N grows until a life passes without any fault (or every third N).

    A log that could not be flushed ends the daemon: after a failed fsync(2) the kernel may drop what it could not
    write, so to try again would prove nothing.
    """
    trial, step = new_trial(daemon=FaultDaemon(place / "d")), often(quick=3, full=1)
    swept = of_the_log = 0
    for kind in ("once", "always"):
        number = draw.randint(1, step)
        while True:
            acknowledged, failed = live_with(
                trial, LD_PRELOAD=str(library), FAULT_PATH=str(trial.daemon.spool), FAULT_KIND=kind,
                FAULT_NTH=str(number),
            )  # fmt: skip
            if not failed:
                break
            swept, number = swept + 1, number + step
            of_the_log += assert_crash_only(trial, acknowledged, failed)
            trial.kill_quietly()
        assert len(acknowledged) == EVENTS
        trial.kill_quietly()
    assert of_the_log
    trial.figures.set(flushes_failed=swept, of_the_log=of_the_log, false_acknowledgements=0)
    trial.daemon.configure("database", url=database)
    with trial:
        trial.check()


def assert_crash_only(trial: Trial, acknowledged: list[float], failed: list[tuple[float, str]]) -> bool:
    """After the write-ahead log could not be flushed nothing is acknowledged, and the process ends by itself.

    Whether it was the log that could not.
    """
    at = min((at for at, path in failed if path.endswith("-wal")), default=None)
    if at is None:
        return False
    assert [when for when in acknowledged if when > at] == [], "acknowledged after the flush had failed"
    process = trial.daemon.process
    assert process is not None
    wait_until(lambda: process.poll() is not None, "the daemon to end", timeout_seconds=STOP_SECONDS)
    assert process.returncode not in (0, -9)
    return True


@pytest.mark.fault("T-13")
def test_a_slow_disk_delays_acknowledgements_and_nothing_else(
    new_trial: NewTrial, place: Path, database: str, library: Path
) -> None:
    """Each flush takes half a second: events share flushes, and a scrape waits for none of them."""
    flush_seconds = 0.5
    daemon = FaultDaemon(place / "d", database={"url": database})
    daemon.more_environment = {
        "LD_PRELOAD": str(library), "FAULT_PATH": "spool.db", "FAULT_KIND": "delay",
        "FAULT_MS": str(int(flush_seconds * 1000)),
    }  # fmt: skip
    with new_trial(daemon=daemon) as trial:
        wanted, began = often(quick=300, full=2000), time.monotonic()
        with trial.producing(clients=CLIENTS, copies=1):
            trial.await_acknowledgements(wanted, timeout_seconds=300)
            shared = wanted * flush_seconds / (time.monotonic() - began)
        slowest = percentile(trial.owed().seconds(), 0.99)
        assert slowest is not None
        trial.figures.set(flush_ms=int(flush_seconds * 1000), events_a_flush=round(shared, 1))
        trial.check()
        # An event waits for the flush under way and for its own; the rest is the load's own time, on what is left of a
        # processor. With a flush for each event the last of the clients would wait for as many as there are.
        assert shared >= CLIENTS / 16
        assert slowest <= CLIENTS / 2 * flush_seconds
        # A scrape that waited for flushes would wait for half of one at least, on the average.
        assert (percentile(trial.watch.scrapes, 0.5) or 9) < flush_seconds / 3
