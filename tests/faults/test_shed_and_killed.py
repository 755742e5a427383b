"""T-24 with T-01: a daemon that gives things up is killed. The trail has what it gave up, but for the last second."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from tests.daemon_process import PATIENCE_SECONDS, wait_until
from tests.faults.clusters import Cluster
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.test_long_outage import MIB, job_tree, shed_by_now, shed_on_record
from tests.faults.trial import FaultDaemon, Trial

NOTED_SECONDS = 5.0  # it notes every second; this machine is a busy one
CLIENTS = 8
MOST_LOOKS_PER_S = 5  # sampling.interval_seconds


def refusals(trial: Trial) -> int:
    """Answers 503, as the clients wrote them down."""
    return sum(statuses.count(503) for statuses in trial.owed().refusals.values())


def uncounted_on_record(url: str) -> list[float]:
    """Since when records say that nothing was counted, in seconds since 1970."""
    query = """
        SELECT (convert_from(payload, 'UTF8')::jsonb #>> '{gap,uncounted_since_us}')::bigint / 1e6
        FROM audit_payload JOIN audit_log USING (chain_id, seq)
        WHERE kind = 'gap' AND convert_from(payload, 'UTF8')::jsonb #> '{gap,uncounted_since_us}' IS NOT NULL
        ORDER BY chain_id, seq
    """
    with psycopg.connect(url) as connection:
        return [float(since) for (since,) in connection.execute(query)]


def await_notes(trial: Trial) -> None:
    """Let the time pass in which what was given up by now must have been noted, and two notes come: one may be begun.

    More is given up all the while, so that there is something to note each second.
    """
    tally, seen = trial.daemon.spool / "shed.tally", set[int]()
    until = time.monotonic() + NOTED_SECONDS

    def noted() -> bool:
        seen.add(tally.stat().st_mtime_ns if tally.exists() else 0)
        return time.monotonic() > until and len(seen) > 2

    wait_until(noted, "two notes of what was given up", timeout_seconds=NOTED_SECONDS + PATIENCE_SECONDS)


def on_record(url: str, what: str, least: int) -> int:
    """What records say was given up, once it is as much as must be: a daemon tells what the one before left."""
    return wait_until(
        lambda: told if (told := shed_on_record(url).get(what, 0)) >= least else None, f"{least} {what} on record"
    )


@pytest.mark.fault("T-24")
def test_killed_while_samples_are_thinned_out(new_trial: NewTrial, place: Path, cluster: Cluster) -> None:
    """The spool has room: the record is made at once, goes on, and ends with the word of the next daemon."""
    tree, jobs = job_tree(place)
    daemon = FaultDaemon(
        place / "d",
        database={"url": cluster.url()},
        sampling={"cgroup_root": str(tree), "interval_seconds": 0.2, "first_seconds": 0.05, "buffer_rows": 100},
    )
    least = most = 0
    with new_trial(daemon=daemon, url=cluster.url()) as trial:
        trial.start_jobs(jobs)
        trial.settle()
        cluster.stop()
        kills: list[float] = []
        for number in range(often(quick=2, full=10)):
            if number:
                trial.revive()
            wait_until(
                lambda: shed_by_now(trial)["samples_thinned"] > 100, "samples to be thinned", timeout_seconds=180
            )
            least += shed_by_now(trial)["samples_thinned"]
            await_notes(trial)
            read = time.monotonic()
            most += shed_by_now(trial)["samples_thinned"]
            trial.kill()
            kills.append(time.time())
            most += int(MOST_LOOKS_PER_S * len(jobs) * (time.monotonic() - read))  # it went on until then
        cluster.start()
        trial.revive()
        trial.end_jobs(jobs)
        trial.settle()
        told = on_record(cluster.url(), "samples_thinned", least)
        most += shed_by_now(trial)["samples_thinned"]  # where the database was slow to take what the last life sampled
        # What the page showed before the last kill may be a moment old, and is of looks at twelve jobs.
        assert least <= told <= most + len(kills) * 2 * len(jobs) * MOST_LOOKS_PER_S, (least, told, most)
        since = wait_until(
            lambda: found if len(found := uncounted_on_record(cluster.url())) >= len(kills) else None, "each kill told"
        )
        assert len(since) == len(kills)
        assert all(0 <= kill - at <= 30 + NOTED_SECONDS for kill, at in zip(kills, since, strict=True)), (kills, since)
        trial.figures.set(samples_thinned=told, at_least=least, kills_told=len(since))
        trial.check()


@pytest.mark.fault("T-24")
def test_killed_while_events_are_refused(new_trial: NewTrial, place: Path, cluster: Cluster) -> None:
    """The spool is full, so that records can hardly be made: those of all lives are there once it has room.

    A record is smaller than the events that find no room, so one may be made all the same.
    """
    daemon = FaultDaemon(
        place / "d",
        database={"url": cluster.url()},
        spool={"max_bytes": 2 * MIB},
        sampling={"cgroup_root": str(place), "interval_seconds": 3600.0},
    )
    with new_trial(daemon=daemon, url=cluster.url()) as trial:
        cluster.stop()
        with trial.producing(clients=CLIENTS, copies=1, patience=120.0):
            wait_until(lambda: refusals(trial) > 50, "events to be refused", timeout_seconds=300)
            least = refusals(trial)
            await_notes(trial)
            trial.kill()  # in the middle of it
            kills = [time.time()]
            trial.revive()
            wait_until(lambda: shed_by_now(trial)["events_refused"] > 20, "events to be refused", timeout_seconds=180)
            least += shed_by_now(trial)["events_refused"]
            await_notes(trial)
            trial.kill()
            kills.append(time.time())
            cluster.start()
            trial.revive()
        trial.settle(180)
        trial.daemon.stop()
        trial.revive()
        trial.settle()
        told, most = on_record(cluster.url(), "events_refused", least), refusals(trial)
        assert least <= told <= most + CLIENTS, (least, told, most)
        since = uncounted_on_record(cluster.url())  # one tells of both kills where there was no room between them
        assert 1 <= len(since) <= len(kills)
        assert all(0 <= kill - at <= 30 + NOTED_SECONDS for kill, at in zip(kills, since, strict=False)), (kills, since)
        trial.figures.set(events_refused=told, answers_503=most, at_least=least)
        trial.check()
