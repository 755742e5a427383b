"""T-17, T-18, T-19: a database that is stopped, killed again and again, or frozen."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.daemon_process import wait_until
from tests.faults.clusters import Cluster
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.trial import FaultDaemon, Trial

DEADLINE_SECONDS = 1.0  # database.timeout_seconds of these trials
STALL_SECONDS = 15.0  # of a machine that does other things; without a deadline a frozen server is waited for for ever
SPOOL_BYTES = 512 * 1024 * 1024  # the default: ten minutes of this load are more than trials have room for otherwise
MOST_PAUSE_SECONDS = 30.0  # the longest that the forwarder waits between two tries
JOB_LOAD = {"clients": 4, "copies": 1, "pause": 0.05}


BUSY = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'jobtrail' AND state <> 'idle' AND xact_start > now() - interval '9 s'
"""


def failures(trial: Trial) -> float:
    """How often forwarding events failed so far."""
    return trial.daemon.metric("jobtrail_forward_failures_total", of="events")


def await_failure(trial: Trial) -> float:
    """Wait until forwarding fails once more; the seconds that took."""
    began, before = time.monotonic(), failures(trial)
    wait_until(lambda: failures(trial) > before, "forwarding to fail", timeout_seconds=60, every_seconds=0.1)
    return time.monotonic() - began


def pass_time(seconds: float, trial: Trial) -> None:
    """Let so much time pass, with the daemon taking events."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        trial.await_acknowledgements(1)


def drained(trial: Trial) -> None:
    """Wait until all is forwarded and note how fast that went."""
    depth = trial.daemon.metric("jobtrail_spool_depth")
    stored = trial.daemon.metric("jobtrail_events_forwarded_total")
    seconds = trial.settle(120)
    went = trial.daemon.metric("jobtrail_events_forwarded_total") - stored
    trial.figures.set(backlog=int(depth), drain_s=seconds, drain_events_per_s=round(went / max(seconds, 0.001)))


@pytest.mark.fault("T-17")
def test_a_database_stopped_and_started(new_trial: NewTrial, place: Path, cluster: Cluster) -> None:
    """Events are acknowledged all the while; when it is back they are there within the longest pause between tries."""
    seconds = often(quick=4, full=600)
    daemon = FaultDaemon(place / "d", spool={"max_bytes": SPOOL_BYTES}, database={"url": cluster.url()})
    with new_trial(url=cluster.url(), daemon=daemon) as trial:
        with trial.producing(**JOB_LOAD):
            trial.await_acknowledgements(100)
            cluster.stop()
            stopped = time.monotonic()
            pass_time(seconds, trial)
            lag = trial.daemon.metric("jobtrail_spool_oldest_unforwarded_age_seconds")
            tries, lasted = failures(trial), time.monotonic() - stopped
            cluster.start()
        drained(trial)
        trial.figures.set(stopped_s=seconds, max_lag_s=lag, failed_tries=int(tries))
        trial.check()
        assert seconds - 3.5 <= lag <= lasted + 30
        assert tries <= lasted + 2


@pytest.mark.fault("T-18")
def test_a_database_killed_again_and_again(new_trial: NewTrial, cluster: Cluster) -> None:
    """A random backend, or the postmaster with all it has, dies in the middle of transactions; nothing is doubled.

    Whether a COMMIT took effect whose answer never came is for the database to tell: its head of the chain says.
    """
    kills = often(quick=5, full=100)
    killed = {"backend": 0, "postmaster": 0}
    with new_trial(url=cluster.url()) as trial:
        with trial.producing(clients=8, copies=1):
            for number in range(kills):
                trial.await_acknowledgements(trial.draw.randrange(1, 200))
                wait_until(cluster.answers, "the database to have recovered", timeout_seconds=60, every_seconds=0.05)
                what = "postmaster" if number % 5 == 4 else "backend"
                kill_one(cluster, what, trial)
                killed[what] += 1
            wait_until(cluster.answers, "the database to have recovered", timeout_seconds=60, every_seconds=0.05)
        drained(trial)
        trial.figures.set(
            **{f"{what}_kills": count for what, count in killed.items()}, failed_tries=int(failures(trial))
        )
        trial.check()
        assert failures(trial) >= 1


def kill_one(cluster: Cluster, what: str, trial: Trial) -> None:
    """Kill while a transaction of the daemon's is open, if one is seen soon."""
    until = time.monotonic() + 1.0
    found: list[tuple[int, ...]] = []
    while not found and time.monotonic() < until:
        found = cluster.execute(BUSY)
    if what == "postmaster":
        cluster.kill()
        cluster.launch()
        return
    crashes = count_crashes(cluster)
    try:
        os.kill(trial.draw.choice([row[0] for row in found] or cluster.backends()), signal.SIGKILL)
    except ProcessLookupError:
        return
    # Until the postmaster has heard of it the server answers as if nothing had happened.
    wait_until(lambda: count_crashes(cluster) > crashes, "the server to begin anew")


def count_crashes(cluster: Cluster) -> int:
    """How often the postmaster has begun anew because one of its processes was killed."""
    return cluster.log.read_text(errors="replace").count("all server processes terminated; reinitializing")


@pytest.mark.fault("T-19")
def test_a_frozen_database(new_trial: NewTrial, place: Path, cluster: Cluster) -> None:
    """Each statement and each attempt to connect has a deadline, /metrics goes on, and so does forwarding afterwards.

    The daemon ends in time too while the server is frozen: closing a connection has a deadline as well.
    """
    url = cluster.url()
    daemon = FaultDaemon(place / "d", database={"url": url, "timeout_seconds": DEADLINE_SECONDS})
    with new_trial(url=url, daemon=daemon) as trial:
        with trial.producing(**JOB_LOAD):
            trial.await_acknowledgements(100)
            detected = []
            for _ in range(often(quick=1, full=10)):
                cluster.freeze()
                detected.append(await_failure(trial))  # a statement
                await_failure(trial)  # connecting: the kernel takes the connection, nobody answers
                pass_time(often(quick=2, full=60), trial)
                began = time.monotonic()
                cluster.thaw()
                wait_until(lambda: trial.daemon.metric("jobtrail_spool_depth") < 50, "it to catch up",
                           timeout_seconds=2 * MOST_PAUSE_SECONDS, every_seconds=0.1)  # fmt: skip
                trial.figures.set(recovered_s=time.monotonic() - began)
        drained(trial)
        trial.figures.set(detected_s=max(detected), freezes=len(detected))
        cluster.freeze()
        began = time.monotonic()
        assert trial.daemon.stop() == 0
        trial.figures.set(stopped_while_frozen_s=time.monotonic() - began)
        cluster.thaw()
        trial.revive()
        trial.check()
        assert max(detected) <= 3 * DEADLINE_SECONDS + STALL_SECONDS
