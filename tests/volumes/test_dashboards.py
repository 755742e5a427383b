"""The SQL of the dashboards is answered on a year's data through indexes, for the time that they open with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.grafana import macros
from tests.grafana.macros import Everything, Value
from tests.grafana.shipped import DASHBOARDS, questions, variables
from tests.volumes.plans import explain

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}
ALL = Everything("'*'")
CHOSEN: dict[str, Value] = {
    "cluster": "c1", "user": ALL, "account": ALL, "job": "slurm-123", "node": "n007", "idle": "1", "actor": ALL,
    "recipe": ("llama8b-chat",),
}  # fmt: skip
# GPUs with errors are found by an index of them alone, for they are rare, and their nodes with them.
_ERRORS = "SELECT count(*) + (SELECT count(*) FROM job_gpus WHERE errors IS NOT NULL)"
# What of each table is in the time of a dashboard: a question may look at so many rows of it, not at those before.
IN_TIME = {
    "jobs": "SELECT count(*) FROM jobs WHERE start_time BETWEEN {begin} AND {end} OR state = 'running'",
    "job_nodes": f"{_ERRORS} FROM job_nodes WHERE started_at BETWEEN {{begin}} AND {{end}} OR ended_at IS NULL",
    "job_gpus": (
        f"{_ERRORS} FROM job_gpus JOIN jobs USING (cluster_name, job_id, run)"
        " WHERE start_time BETWEEN {begin} AND {end}"
    ),
    "audit_log": "SELECT count(*) FROM audit_log WHERE changed_at BETWEEN {begin} AND {end}",
    "audit_payload": "SELECT count(*) FROM audit_log WHERE changed_at BETWEEN {begin} AND {end}",
    "job_samples": "SELECT count(*) FROM job_samples WHERE job_id = 'slurm-123'",
    "gpu_samples": "SELECT count(*) FROM gpu_samples WHERE job_id = 'slurm-123'",
    "energy_samples": "SELECT count(*) FROM energy_samples WHERE job_id = 'slurm-123'",
}


@dataclass(frozen=True)
class Asked:
    """A panel's question, an annotation's, or the choices of a variable."""

    dashboard: str
    name: str
    statement: str


def everything() -> list[Asked]:
    """All of them."""
    found = [Asked(one.dashboard, one.name, one.target["rawSql"]) for one in questions("rawSql")]
    for name, dashboard in DASHBOARDS.items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query" and isinstance(variable["query"], str):
                found.append(Asked(name, f"{name}: choices of {variable['name']}", variable["query"]))
    return found


def opened(dashboard: str) -> tuple[datetime, datetime]:
    """The time that a dashboard opens with."""
    written = re.fullmatch(r"now-(\d+)([hd])", DASHBOARDS[dashboard]["time"]["from"])
    assert written is not None
    now = datetime.now(UTC)
    return now - int(written[1]) * UNITS[written[2]], now


def as_sent(asked: Asked, hardware: tuple[str, ...]) -> str:
    """The statement with everything chosen that can be."""
    every = {name for name, one in variables(DASHBOARDS[asked.dashboard]).items() if one.get("allValue")}
    values = {**CHOSEN, "hardware": hardware, **dict.fromkeys(every, ALL)}
    return macros.sql(asked.statement, values, *opened(asked.dashboard), interval_seconds=300)


@pytest.mark.parametrize("asked", [pytest.param(one, id=one.name) for one in everything()])
def test_it_reads_what_is_in_its_time(connection: Any, asked: Asked) -> None:
    hardware = connection.execute("SELECT array_agg(DISTINCT hardware) FROM benchmark_run").fetchone()[0]
    begin, end = (f"'{at.isoformat()}'" for at in opened(asked.dashboard))
    connection.execute("SET ROLE jobtrail_reader")
    reading = explain(connection, as_sent(asked, tuple(hardware)))
    assert not reading.scanned, f"read from end to end: {reading.scanned}"
    for table, rows in reading.read.items():
        if table not in IN_TIME:  # results of benchmarks, of which dashboards show all there are
            continue
        (known,) = connection.execute(IN_TIME[table].format(begin=begin, end=end).encode()).fetchone()
        # Twice: some join two views of jobs, and whether a chain has a gap shows in the event before.
        assert rows <= 2.5 * known + 500, (
            f"{table}, of which {known} are in its time; indexes: {sorted(reading.indexes)}"
        )
