"""docs/sql.md names every table and view, and each of its queries runs with the rights of those who read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row

TEXT = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
QUERIES = {
    query.strip().partition("\n")[0].removeprefix("-- "): query
    for block in BLOCKS
    for query in block.split(";\n")
    if query.strip()
}


@pytest.fixture
def now() -> datetime:
    """The time of the test, not that of its collection: the queries look at the last hour."""
    return datetime.now(UTC)


def insert(connection: Any, table: str, **values: Any) -> None:
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(values.values()))


def add_job(connection: Any, job_id: str, state: str, **values: Any) -> None:
    correlation = "11111111-1111-1111-1111-111111111111"
    known = {"cluster_name": "c1", "job_id": job_id, "run": 1, "correlation_id": correlation, "projection": "{}"}
    insert(connection, "jobs", **known, state=state, **values)


def ask(connection: Any, beginning: str) -> list[dict[str, Any]]:
    (query,) = [query for title, query in QUERIES.items() if title.startswith(beginning)]
    with connection.cursor(row_factory=dict_row) as cursor:
        found: list[dict[str, Any]] = cursor.execute(query).fetchall()
    return found


@pytest.mark.parametrize("title", sorted(QUERIES))
def test_each_query_runs_with_the_rights_of_those_who_read(database: str, title: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("SET ROLE jobtrail_reader")
        assert connection.execute(QUERIES[title].encode()).fetchall() == []


def test_every_table_and_view_is_named_and_no_other(database: str) -> None:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')"
            " AND NOT relispartition AND relname <> 'alembic_version'"
        ).fetchall()
    assert {name for (name,) in rows} == set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))


def test_only_gpus_that_did_nothing_for_the_whole_hour_are_listed_as_idle(database: str, now: datetime) -> None:
    """Not one whose utilisation is unknown, one of a run that has just begun, or one that was used once."""
    runs = {"idle": (0.0, 0.0, 5), "used": (0.0, 90.0, 5), "unknown": (0.0, None, 5), "new": (0.0, 0.0, 0)}
    with psycopg.connect(database) as connection:
        for job_id, (one, other, hours) in runs.items():
            add_job(connection, job_id, "running", user_name="ada", start_time=now - timedelta(hours=hours))
            for minutes, percent in ((9, one), (5, other)):
                insert(
                    connection, "gpu_samples", sampled_at=now - timedelta(minutes=minutes), node="n1",
                    gpu_id=f"GPU-{job_id}", vendor="nvidia", cluster_name="c1", job_id=job_id,
                    utilization_percent=percent, memory_used_bytes=minutes,
                )  # fmt: skip
        assert ask(connection, "GPUs that are held") == [
            {"node": "n1", "gpu_id": "GPU-idle", "job_id": "idle", "user_name": "ada", "looks": 2,
             "memory_used_bytes": 9},
        ]  # fmt: skip


def test_energy_by_account_counts_what_has_no_number(database: str, now: datetime) -> None:
    last_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
    with psycopg.connect(database) as connection:
        connection.execute("SET timezone = 'UTC'")
        known = {"account": "physics", "end_time": last_month}
        add_job(
            connection, "1", "completed", energy_joules=3.6e6, emissions_grams=100, energy_coverage_ratio=1, **known
        )
        add_job(connection, "2", "completed", energy_joules=7.2e6, energy_coverage_ratio=0.5, **known)
        add_job(connection, "3", "completed", **known)
        add_job(connection, "4", "completed", account="physics", energy_joules=1e9, end_time=now)
        assert ask(connection, "Energy and emissions of the last month") == [
            {"account": "physics", "jobs": 3, "kwh": 3.0, "grams": 100.0, "without_energy": 1, "without_grams": 2,
             "mean_coverage": 0.75},
        ]  # fmt: skip


def test_gpu_errors_and_unused_hours_add_up(database: str, now: datetime) -> None:
    with psycopg.connect(database) as connection:
        for number, errors in (("1", {"31": 2, "79": 1}), ("2", {"31": 3}), ("3", None)):
            key = {"cluster_name": "c1", "job_id": number, "run": 1, "node": "n1"}
            began = now - timedelta(hours=int(number))
            add_job(connection, number, "completed", user_name="ada", end_time=now)
            insert(connection, "job_nodes", **key, started_at=began, ended_at=now, projection="{}")
            insert(
                connection, "job_gpus", **key, gpu_id="GPU-a", observed_seconds=7200, unused_seconds=3600,
                errors=None if errors is None else msgspec.json.encode(errors).decode(),
            )  # fmt: skip
        found = [tuple(row.values()) for row in ask(connection, "GPU errors")]
        assert found == [
            ("n1", "GPU-a", "31", 5, 2, now - timedelta(hours=1)),
            ("n1", "GPU-a", "79", 1, 1, now - timedelta(hours=1)),
        ]
        assert ask(connection, "GPU hours") == [{"user_name": "ada", "unused_hours": 3.0, "hours": 6.0}]


def test_watts_are_the_energy_between_two_looks_of_one_run(database: str, now: datetime) -> None:
    """Not from the last look at one run to the first at the next."""
    looks = [("1", 0, 0.0), ("1", 15, 1500.0), ("1", 20, None), ("1", 30, 6000.0), ("2", 60, 5.0), ("2", 61, 205.0)]
    with psycopg.connect(database) as connection:
        for run, seconds, joules in looks:
            insert(
                connection, "energy_samples", sampled_at=now + timedelta(seconds=seconds), cluster_name="c1",
                job_id="slurm-123", node="n1", opened_by=f"00000000-0000-0000-0000-00000000000{run}",
                gpu_joules=joules,
            )  # fmt: skip
        found = [row["gpu_watts"] for row in ask(connection, "Watts of a job over time")]
    assert found == [None, 100.0, 300.0, None, 200.0]
