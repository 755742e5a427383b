"""T-29, T-30, T-32: events that come twice, in any order, late or never, and a node that reboots below its jobs."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.daemon_process import wait_until
from tests.faults import wire
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.trial import FaultDaemon, Trial

DAY_SECONDS = 86_400
OF_THE_NODE, OF_THE_CONTROLLER = ("prolog", "epilog"), ("prolog-slurmctld", "epilog-slurmctld")
# What tells one run's row from another's although the same happened to both.
# A run whose end was heard first was never measured here, so these say what was, not what the hooks said.
MEASURED = ("nodes_reporting", "usage_absent", "usage_sources", "sample_count", "coverage_ratio")
THEIR_OWN = (*MEASURED, "job_id", "correlation_id", "updated_at", "comment", "projection")


@pytest.mark.fault("T-29")
def test_every_event_several_times_at_once(trial: Trial) -> None:
    """Each is sent by one to five clients at the same moment; one of them gets 201, the others 200."""
    jobs = often(quick=150, full=3000)
    with trial.producing(clients=8, copies=5, share=1.0, jobs=jobs) as producer:
        wait_until(lambda: producer.poll() is not None, "all to be sent", timeout_seconds=300, every_seconds=0.1)
    owed = trial.owed()
    first = [sum(ack["status"] == 201 for ack in acks) for acks in owed.acks.values()]
    assert first == [1] * 2 * jobs
    trial.figures.set(sent=sum(map(len, owed.acks.values())), distinct=len(owed.acks))
    trial.check()


@pytest.mark.fault("T-29")
def test_one_id_and_two_bodies(trial: Trial) -> None:
    """The second body is a conflict, also after a restart; what was held first stands."""
    events = trial.fresh_job()
    assert trial.send(*events) == [201, 201]
    for _ in range(2):
        for event in events:
            assert post(trial, replace(event, environment={**event.environment, "SLURM_JOB_USER": b"eve"})) == 409
            assert post(trial, replace(event, time_text=f"{time.time():.9f}")) == 409
            assert post(trial, event) == 200
        trial.kill()
        trial.revive()
    trial.figures.set(conflicts=8)
    trial.check()


def post(trial: Trial, event: wire.Sending) -> int:
    """The status of one request that the oracle does not note."""

    async def once() -> int:
        line = wire.Line(trial.daemon.socket)
        status, _ = await line.post(event)
        line.close()
        return status

    return asyncio.run(once())


def hooks_of(trial: Trial, began: float) -> list[wire.Sending]:
    """The four events of a job that began then and ran for a minute."""
    job = trial.next_job()
    more = {"SLURM_JOB_NAME": "shuffled"}
    node = [wire.make(hook, job, trial.draw, start=int(began), at=began + 60 * number, **more)
            for number, hook in enumerate(OF_THE_NODE)]  # fmt: skip
    controller = [wire.make(hook, job, trial.draw, start=int(began), at=began + 60 * number, **more)
                  for number, hook in enumerate(OF_THE_CONTROLLER)]  # fmt: skip
    return [*node, *controller]


def outcome(url: str, job: int) -> list[dict[str, Any]]:
    """The rows of a job, without what is each row's own."""
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        rows = connection.execute("SELECT * FROM jobs WHERE job_id = %s ORDER BY run", (f"slurm-{job}",)).fetchall()
    return [{name: without_ids(value) for name, value in row.items() if name not in THEIR_OWN} for row in rows]


def without_ids(value: Any) -> Any:
    """A column's value without the ids of the events it comes from, which are each row's own."""
    if isinstance(value, dict):
        return {name: without_ids(part) for name, part in value.items() if name != "event_id"}
    return [without_ids(part) for part in value] if isinstance(value, list) else value


def differences(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """The columns in which rows differ."""
    if len(one) != len(other):
        return {"runs": (len(one), len(other))}
    return {name: (a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a if a[name] != b[name]}


@pytest.mark.fault("T-30")
def test_every_order_of_the_events_of_a_job_gives_the_same_job(trial: Trial) -> None:
    """All orders of every subset of a job's four hook events: the job's row depends on the subset alone."""
    tried = 0
    began = float(int(time.time()) - 3600)
    for count in (2, 3, 4):
        for subset in itertools.combinations(range(4), count):
            jobs = []
            for order in itertools.permutations(subset):
                events = hooks_of(trial, began)
                jobs.append(events[0].job)
                assert trial.send(*(events[place] for place in order)) == [201] * count
            trial.settle()
            expected = outcome(trial.url, jobs[0])
            assert len(expected) == 1, f"events {subset} in order make {len(expected)} runs"
            for job in jobs[1:]:
                assert differences(outcome(trial.url, job), expected) == {}, f"events {subset}: slurm-{job}"
            tried += len(jobs)
    trial.figures.set(orders=tried)
    trial.check()


@pytest.mark.fault("T-30")
def test_a_prolog_three_days_late(trial: Trial) -> None:
    """Its epilog came first; the job has the times that its hooks said, whenever they were heard."""
    began = float(int(time.time()) - 3 * DAY_SECONDS)
    prolog, epilog, *_ = hooks_of(trial, began)
    assert trial.send(epilog) == [201]
    trial.settle()
    trial.leave_in_spool(prolog)
    wait_until(lambda: not any((trial.daemon.spool / "incoming").iterdir()), "the late file to be taken")
    trial.settle()
    (row,) = outcome(trial.url, prolog.job)
    assert row["end_time"].timestamp() - row["start_time"].timestamp() == 60
    assert row["start_time"].timestamp() == began
    assert row["state"] != "running"
    trial.figures.set(days_late=3)
    trial.check()


@pytest.mark.fault("T-32")
def test_a_node_that_reboots_closes_its_jobs(
    new_trial: NewTrial, place: Path, database: str, draw: random.Random
) -> None:
    """The daemon dies with the node, jobs running; after the boot each is closed as inferred, with the reason."""
    proc = proc_tree(place)
    daemon = FaultDaemon(place / "d", database={"url": database}, sampling={"proc_root": str(proc)})
    count = often(quick=20, full=300)
    with new_trial(daemon=daemon) as trial:
        prologs = [trial.fresh_job()[0] for _ in range(count)]
        assert trial.send(*prologs) == [201] * count
        trial.kill()
        (proc / "sys/kernel/random/boot_id").write_text(f"{uuid.UUID(int=draw.getrandbits(128), version=4)}\n")
        began = time.monotonic()
        trial.revive()
        wait_until(lambda: running(database) == 0, "the jobs to be closed", timeout_seconds=60, every_seconds=0.1)
        trial.figures.set(jobs=count, closed_within_seconds=time.monotonic() - began)
        for prolog in prologs:
            (row,) = outcome(database, prolog.job)
            assert row["end_inferred"]
        trial.check()


def proc_tree(place: Path) -> Path:
    """A /proc of our own: the real one's files that the daemon reads of the node, and a boot id that can be changed."""
    proc = place / "proc"
    (proc / "sys/kernel/random").mkdir(parents=True)
    for name in ("stat", "meminfo", "loadavg", "uptime", "cpuinfo", "sys/kernel/random/boot_id"):
        shutil.copy(Path("/proc") / name, proc / name)
    return proc


def running(url: str) -> int:
    """How many jobs are shown as running."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM jobs WHERE state = 'running'").fetchone()
    assert found is not None
    return int(found[0])
