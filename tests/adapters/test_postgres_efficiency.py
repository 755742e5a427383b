"""The view `job_efficiency` and the report say the same of a run, and the analytics with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresReader, session
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.job import Job, NodeRun
from jobtrail.domain.job_report import JobReport
from jobtrail.domain.job_report_making import make_report

BEGIN = datetime(2026, 11, 21, 8, tzinfo=UTC)
GIB = 1 << 30
CORRELATION = "00000000-0000-4000-8000-000000000007"

RUN: dict[str, Any] = {
    "state": "completed", "start_time": BEGIN, "end_time": BEGIN + timedelta(seconds=1000), "cpus_allocated": 8,
    "cpu_seconds": 2000.0, "memory_peak_bytes": 6 * GIB, "memory_limit_bytes": 16 * GIB, "nodes_reporting": 2,
    "nodes_total": 2,
}  # fmt: skip
PART: dict[str, Any] = {"cpus": 4, "sample_count": 3, "memory_peak_bytes": 6 * GIB, "limit": 16 * GIB}
SMALL = {**PART, "memory_peak_bytes": 3 * GIB, "limit": 4 * GIB}
OPEN = {"state": "running", "end_time": None, "last_sample_at": BEGIN + timedelta(seconds=500)}


async def insert(connection: Any, table: str, row: dict[str, Any]) -> None:
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values())


async def stored(pool: Any, job: dict[str, Any], parts: dict[str, dict[str, Any]]) -> None:
    key = {"cluster_name": "c1", "job_id": "slurm-7", "run": 1}
    projection = msgspec.json.encode(Job(**key, correlation_id=CORRELATION)).decode()
    sources = job.get("usage_sources")
    told = {**RUN, **job} if sources is None else {**RUN, **job, "usage_sources": msgspec.json.encode(sources).decode()}
    async with session(pool, 10.0) as connection:
        await insert(connection, "jobs", {**key, "correlation_id": CORRELATION, "projection": projection, **told})
        for node, part in parts.items():
            usage = NodeUsage(memory_limit_bytes=part["limit"])
            row = {name: value for name, value in part.items() if name != "limit"}
            held = msgspec.json.encode(NodeRun(node=node, usage=usage)).decode()
            await insert(connection, "job_nodes", {**key, "node": node, "projection": held, **row})


async def read(pool: Any) -> tuple[dict[str, Any], JobReport]:
    """The row of the view, and the report on the same run."""
    detail = await PostgresReader(pool, timeout_seconds=10.0).show_job("slurm-7")
    report = make_report(
        detail.job, sentence="", nodes=detail.nodes, gpus=(), other_runs=(), now=BEGIN + timedelta(seconds=600)
    )
    async with session(pool, 10.0) as connection:
        row = dict(await connection.fetchrow("SELECT * FROM job_efficiency"))
    assert {name: detail.efficiency[name] for name in ("cpu_efficiency", "memory_efficiency")} == {
        name: row[name] for name in ("cpu_efficiency", "memory_efficiency")
    }
    return row, report


@pytest.mark.parametrize(
    ("job", "parts", "cpu", "memory", "node"),
    [
        ({}, {"n1": PART, "n2": PART}, 0.25, 6 / 16, None),
        ({"suspended_seconds": 0.0}, {"n1": PART, "n2": PART}, 0.25, 6 / 16, None),
        ({"suspended_seconds": 500.0}, {"n1": PART, "n2": PART}, 0.5, 6 / 16, None),
        ({"suspended_seconds": 1000.0}, {"n1": PART, "n2": PART}, None, 6 / 16, None),
        ({"suspended_seconds": 5000.0}, {"n1": PART, "n2": PART}, None, 6 / 16, None),
        ({"suspended_seconds": 5000.0, "start_time": None}, {"n1": PART, "n2": PART}, None, 6 / 16, None),
        ({"suspended_seconds": 100.0, **OPEN}, {"n1": PART, "n2": PART}, 2000 / (8 * 400), 6 / 16, None),
        ({}, {"n1": PART, "n2": SMALL}, 0.25, 3 / 4, "n2"),
        ({}, {"n1": PART, "n2": {**SMALL, "memory_peak_bytes": None}}, 0.25, 6 / 16, None),
        ({}, {"n1": PART, "n2": {**SMALL, "limit": None}}, 0.25, 6 / 16, None),
        ({}, {"n1": PART, "n2": {**SMALL, "limit": 0}}, 0.25, 6 / 16, None),
        # What no kernel has, and a node may say: it must not cost everybody the view.
        ({}, {"n1": PART, "n2": {**SMALL, "limit": 2**63}}, 0.25, 6 / 16, None),
        ({}, {"n1": PART, "n2": {**SMALL, "limit": -(2**70)}}, 0.25, 6 / 16, None),
        ({}, {"n1": PART, "n2": {**SMALL, "limit": 2**63 - 1}}, 0.25, 6 / 16, "n1"),
        # It is over, and nobody knows since when.
        ({"end_time": None, "last_sample_at": BEGIN + timedelta(seconds=500)}, {"n1": PART}, None, 6 / 16, None),
        ({}, {"Nb": SMALL, "na": {**SMALL, "memory_peak_bytes": 6 * GIB, "limit": 8 * GIB}}, 0.25, 3 / 4, "na"),
        ({"memory_limit_bytes": None, "memory_requested_bytes": 24 * GIB}, {}, 0.25, 6 / 12, None),
        ({"memory_limit_bytes": None, "memory_requested_bytes": 24 * GIB, "nodes_total": None}, {}, 0.25, None, None),
        ({"nodes_reporting": 1}, {"n1": PART, "n2": {**PART, "sample_count": 0}}, 0.5, 6 / 16, None),
        ({"nodes_reporting": 1}, {"n1": {**PART, "cpus": None}}, None, 6 / 16, None),
        ({"nodes_reporting": 1}, {}, None, 6 / 16, None),
        ({"nodes_reporting": 1, "usage_sources": {"cpu": "slurm_accounting"}}, {"n1": PART}, 0.25, 6 / 16, None),
        ({"nodes_reporting": 1, "nodes_total": None}, {"n1": PART}, 0.25, 6 / 16, None),
    ],
)
async def test_the_view_says_what_the_report_says(
    pool: Any, job: dict[str, Any], parts: dict[str, dict[str, Any]], cpu: float | None, memory: float | None,
    node: str | None,
) -> None:  # fmt: skip
    await stored(pool, job, parts)
    row, report = await read(pool)
    assert row["cpu_efficiency"] == report.cpu.ratio == (None if cpu is None else pytest.approx(cpu))
    assert row["memory_efficiency"] == report.memory.ratio == (None if memory is None else pytest.approx(memory))
    assert row["memory_efficiency_node"] == report.memory.limit_of == node
    assert row["cpus_measured"] == report.cpu.cpus


async def test_a_question_about_other_columns_reads_no_nodes(pool: Any) -> None:
    """Nor does one about runs on one node: the subqueries are there, and are not run."""
    await stored(pool, {"nodes_reporting": 1, "nodes_total": 1}, {"n1": PART})
    others = "job_id, cpu_seconds, memory_peak_bytes, gpu_efficiency, active_seconds"
    async with session(pool, 10.0) as connection:
        plain = await connection.fetch(f"EXPLAIN SELECT {others} FROM job_efficiency")
        asked = await connection.fetch(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT cpu_efficiency, memory_efficiency FROM job_efficiency"
        )
    assert not [line[0] for line in plain if "job_nodes" in line[0]]
    looks = [line[0] for line in asked if "job_nodes" in line[0]]
    assert looks
    assert all("never executed" in line for line in looks)
