"""How busy GPUs were, where some of them do not tell it: instances of partitioned GPUs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.grafana import macros
from tests.grafana.shipped import questions

NOW = datetime.now(UTC)
ALL: dict[str, macros.Value] = {name: macros.Everything("'*'") for name in ("account", "user")}


def store(connection: Any, job: str, busy: float | None) -> None:
    """A job that held one GPU for the last hour."""
    begin = NOW - timedelta(hours=1)
    connection.execute(
        "INSERT INTO jobs (cluster_name, job_id, run, correlation_id, projection, state, user_name, account,"
        " start_time, end_time, gpus_allocated, gpu_seconds, gpu_busy_seconds)"
        " VALUES ('c1', %s, 1, gen_random_uuid(), '{}', 'completed', 'ada', 'physics', %s, %s, 1, 3600, %s)",
        (job, begin, NOW, busy),
    )
    connection.execute(
        "INSERT INTO job_gpus (cluster_name, job_id, run, node, gpu_id, observed_seconds, busy_seconds)"
        " VALUES ('c1', %s, 1, 'n1', %s, 3600, %s)",
        (job, f"GPU-{job}", busy),
    )


@pytest.mark.parametrize(
    ("panel", "column"), [("GPU busy", "gpu_busy"), ("By account", "gpu_busy"), ("GPU hours not used, by user", "busy")]
)
def test_time_of_gpus_that_do_not_tell_is_no_idle_time(database: str, panel: str, column: str) -> None:
    (asked,) = (one for one in questions("rawSql") if one.panel == panel and one.dashboard != "job")
    clusters: macros.Value = macros.Everything("'*'") if asked.dashboard == "accounts" else ("c1", "c2")
    query = macros.sql(
        asked.target["rawSql"],
        {**ALL, "cluster": clusters},
        NOW - timedelta(hours=2),
        NOW + timedelta(hours=1),
        interval_seconds=60,
    )
    with psycopg.connect(database, row_factory=dict_row) as connection:
        store(connection, "slurm-1", 1800.0)
        store(connection, "slurm-2", None)
        (row,) = connection.execute(query.encode()).fetchall()
        assert row[column] == pytest.approx(0.5)
