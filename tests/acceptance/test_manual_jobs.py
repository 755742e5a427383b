"""A job kept by hand with the commands and the client, through the real daemon, into the trail and back out of it."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from jobtrail.client import ApiError, Author, Client
from tests.daemon_process import Daemon, wait_until

ADA = Author(changed_by="ada", source="lsf-import")
JOB = "manual-lsf-4711"
REQUEST = str(uuid.uuid4())


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-manual-"))
    try:
        with embedded_postgres.running(directory / "postgres") as url:
            migrate.upgrade(url)
            with Daemon(directory / "daemon", scheduler="local", database={"url": url}) as running:
                yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def told(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    done = daemon.cli(*arguments, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def listed(daemon: Daemon) -> dict[str, Any]:
    return {job["job_id"]: job for job in json.loads(told(daemon, "jobs", "list", "--json"))["jobs"]}


async def test_create_samples_amend_withdraw_trail_rebuild(daemon: Daemon) -> None:
    """The trail tells each change with its person, and gives the same jobs again."""
    made = told(
        daemon, "jobs", "create", "--id", JOB, "--user", "root", "--account", "chem", "--nodes", "n[1-2]",
        "--memory-limit", "16G", "--start-time", "2h", "--changed-by", "ada", "--correlation-id", REQUEST,
    )  # fmt: skip
    assert made == f"{JOB}\n"
    kept = told(daemon, "jobs", "create", "--state", "running").strip()
    # A command waits a moment for the database to have what it said, and not for ever.
    wait_until(lambda: {JOB, kept} == set(listed(daemon)), "both to be stored", every_seconds=0.2)
    assert listed(daemon)[JOB]["memory_limit_bytes"] == 16 << 30
    now = datetime.now(UTC)
    async with Client(socket=str(daemon.socket)) as client:
        samples = [{"sampled_at": now - timedelta(seconds=seconds), "cpu_percent": 50 + seconds} for seconds in (1, 0)]
        assert await client.add_samples(JOB, ADA, samples) == 2
        read = (await client.metrics(JOB)).samples
        assert [(one.cpu_percent, one.node, one.source) for one in read] == [
            (51.0, "n1", "api:lsf-import"),
            (50.0, "n1", "api:lsf-import"),
        ]
        written = await client.amend_job(JOB, ADA, state="completed", exit_code=0, end_time=now, account=None)
        assert written.job_id == JOB
        wait_until(lambda: listed(daemon)[JOB]["state"] == "completed", "the change to be stored", every_seconds=0.2)
        job = await client.job(JOB)
        assert (job.state, job.exit_code, job.end_time, job.account) == ("completed", 0, now, None)
        with pytest.raises(ApiError) as refused:
            await client.amend_job(JOB, ADA, state="running")
        assert (refused.value.status, refused.value.field) == (400, "state")
        assert told(daemon, "jobs", "withdraw", JOB, "--changed-by", "eve").startswith(f"{JOB} withdrawn")
        wait_until(lambda: set(listed(daemon)) == {kept}, "it to be gone", every_seconds=0.2)
        with pytest.raises(ApiError) as gone:
            await client.job(JOB)
        assert gone.value.status == 404
        trail = [(event.event_kind, event.change_type, event.person) for event in await client.job_audit(JOB)]
        assert trail == [
            ("job_created", "create", "ada"),
            ("job_amended", "update", "ada"),
            ("job_withdrawn", "delete", "eve"),
        ]
        (asked,) = (await client.audit(correlation_id=REQUEST)).events
        assert (asked.job_id, asked.event_kind, asked.request_id) == (JOB, "job_created", REQUEST)
        by_ada = [event.event_kind async for event in client.all_audit(changed_by="ada")]
        assert by_ada == ["job_amended", "job_created"]
    log = told(daemon, "audit", "log", JOB)
    for person in ("ada", "eve"):
        assert f"{person} (cli, uid:{os.getuid()})" in log
    check = json.loads(told(daemon, "audit", "rebuild", "--check", "--json"))
    assert (check["runs"], check["differing"], check["unverifiable"]) == (2, 0, {})
    told(daemon, "audit", "rebuild", "--yes")
    assert set(listed(daemon)) == {kept}
    assert json.loads(told(daemon, "audit", "rebuild", "--check", "--json"))["differing"] == 0


def test_commands_say_what_is_wrong_and_end_with_its_code(daemon: Daemon) -> None:
    assert "must be manual-NAME" in told(daemon, "jobs", "create", "--id", "slurm-5", code=2)
    assert "16G" in told(daemon, "jobs", "create", "--memory-limit", "lots", code=2)
    assert "2026-11-21" in told(daemon, "jobs", "create", "--start-time", "soon", code=2)
    assert "name at least one" in told(daemon, "jobs", "amend", "manual-a", code=2)
    assert "is none of user_name" in told(daemon, "jobs", "amend", "manual-a", "--clear", "nothing", code=2)
    both = told(daemon, "jobs", "amend", "manual-a", "--comment", "x", "--clear", "comment", code=2)
    assert "both set and cleared" in both
    assert "manual-a" in told(daemon, "jobs", "amend", "manual-a", "--comment", "x", code=4)
    assert told(daemon, "jobs", "create", "--id", "manual-a", "--comment", "x", "--json")
    wait_until(lambda: "manual-a" in listed(daemon), "it to be stored", every_seconds=0.2)
    assert "exists already" in told(daemon, "jobs", "create", "--id", "manual-a", code=1)
    told(daemon, "jobs", "amend", "manual-a", "--clear", "comment")
    wait_until(lambda: listed(daemon)["manual-a"]["comment"] is None, "the comment to go", every_seconds=0.2)
    daemon.stop()
    assert "no daemon answers" in told(daemon, "jobs", "withdraw", "manual-a", code=3)
