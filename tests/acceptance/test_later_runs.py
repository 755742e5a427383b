"""Runs of Slurm jobs whose epilog is lost, against the real daemon, on a node where no cgroup can tell their end."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import PostgresSink, close_pool, migrate, open_pool
from jobtrail.domain.events import Actor, Event, EventKind, encode
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.chains import ChainWriter
from tests.daemon_process import Daemon, wait_until

JOB = "slurm-41"


@pytest.fixture
def place() -> Iterator[tuple[Daemon, str]]:
    """A daemon below whose root of cgroups there is nothing, and the URL of its database."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-later-"))
    empty = directory / "cgroup"
    empty.mkdir()
    try:
        with embedded_postgres.running(directory / "postgres") as url:
            migrate.upgrade(url)
            sampling = {
                "interval_seconds": 0.5, "runaway_seconds": 0.5, "gone_seconds": 1.0, "cgroup_root": str(empty),
            }  # fmt: skip
            with Daemon(directory / "daemon", node="n1", database={"url": url}, sampling=sampling) as daemon:
                yield daemon, url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def post(daemon: Daemon, hook: str, start: int, *, at: float | None = None) -> None:
    """What a hook of job 41 tells at that moment, now unless named; the run began at `start`."""
    values = {
        "SLURM_JOB_ID": "41", "SLURM_CLUSTER_NAME": "c1", "SLURM_JOB_NODELIST": "n1", "SLURMD_NODENAME": "n1",
        "SLURM_JOB_UID": "1001", "SLURM_JOB_USER": "ada", "SLURM_JOB_START_TIME": str(start),
        "SLURM_SCRIPT_CONTEXT": f"{hook}_slurmd",
    }  # fmt: skip
    body = b"".join(f"{name}={value}\0".encode() for name, value in values.items())
    when = time.time() if at is None else at
    headers = {"Jobtrail-Event-Id": str(uuid.uuid4()), "Jobtrail-Event-Time": f"{when:.9f}"}
    status, answer = daemon.request("POST", f"/v1/hooks/slurm/{hook}", body, headers)
    assert status == 201, answer


def job(daemon: Daemon, run: int) -> dict[str, Any] | None:
    done = daemon.cli("jobs", "show", JOB, "--run", str(run), "--json", check=False)
    return dict(json.loads(done.stdout)["job"]) if done.returncode == 0 else None


def running_here(daemon: Daemon) -> int:
    return len(daemon.metrics().get("hpc_job_info", []))


def until(daemon: Daemon, run: int, **wanted: Any) -> dict[str, Any]:
    """The run, once it is so."""

    def found() -> dict[str, Any] | None:
        row = job(daemon, run)
        return row if row is not None and {name: row[name] for name in wanted} == wanted else None

    return wait_until(found, f"run {run} to be {wanted}; log:\n{daemon.tail()}", every_seconds=0.3)


def test_a_later_run_ends_the_one_before_and_a_late_epilog_says_when(place: tuple[Daemon, str]) -> None:
    """The job was requeued; the first run's epilog is lost, or lies in a file that is taken up later."""
    daemon, _ = place
    now = int(time.time())
    post(daemon, "prolog", now - 100, at=now - 100)
    until(daemon, 1, state="running")
    post(daemon, "prolog", now - 10, at=now - 10)
    until(daemon, 2, state="running")
    first = until(daemon, 1, state="ended", end_inferred=True)
    assert first["end_time"] > first["start_time"]
    closed = {labels["reason"]: value for labels, value in daemon.metrics()["jobtrail_runs_closed_total"]}
    assert closed["later_run_began"] == 1
    post(daemon, "epilog", now - 100, at=now - 20)
    until(daemon, 1, end_inferred=False)
    until(daemon, 2, state="running")


async def say(url: str, record: SlurmRecord) -> None:
    """Store Slurm's word, as the daemon of the server role does on another machine."""
    writer = ChainWriter("ctl")
    event = Event(
        kind=EventKind.SLURM_REPORTED, event_id=str(uuid.uuid4()), time_us=time.time_ns() // 1000, cluster="c1",
        job_id=JOB, node="ctl", changed_by=Actor.RECONCILER, source=str(record.origin), run=1, slurm=record,
    )  # fmt: skip
    writer.raw(encode(event), kind=str(event.kind), event_id=event.event_id)
    pool = await open_pool(url, size=1, timeout_seconds=10.0)
    await PostgresSink(pool, timeout_seconds=10.0).store(writer.rows, node="ctl")
    await close_pool(pool, timeout_seconds=5.0)


def test_what_slurm_knows_to_be_over_ends_on_the_node(place: tuple[Daemon, str]) -> None:
    """Else it would be sampled, and shown among the jobs that run here, for ever."""
    daemon, url = place
    now = int(time.time())
    post(daemon, "prolog", now - 100, at=now - 100)
    until(daemon, 1, state="running")
    record = SlurmRecord(
        origin=Origin.SLURMDBD, job_id=JOB, state="TIMEOUT", submit_time=now - 101, start_time=now - 100,
        end_time=now - 50,
    )  # fmt: skip
    asyncio.run(say(url, record))

    def ends() -> list[dict[str, Any]]:
        done = daemon.cli("audit", "log", JOB, "--json", check=False)
        events = [row["event"] for row in json.loads(done.stdout or "[]")]
        return [event for event in events if event["kind"] == "job_closed"]

    (closed,) = wait_until(ends, f"the node's end; log:\n{daemon.tail()}", every_seconds=0.3)
    assert (closed["closing"]["reason"], closed["node"]) == ("ended_in_slurm", "n1")
    assert (now - 100) * 1_000_000 <= closed["closing"]["not_before_us"] <= closed["time_us"]
    assert closed["time_us"] == (now - 45) * 1_000_000
    until(daemon, 1, end_inferred=False)
    shown = wait_until(lambda: running_here(daemon) == 0, "the series to end", every_seconds=0.5)
    assert shown
