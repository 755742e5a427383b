"""The questions of docs/sql.md and of the dashboards on a year of a cluster: 1 M events, 10 M samples (tests/volumes).

Takes two minutes and more, and 5 GB of disk. `python -m benchmarks questions` prints the figures,
`python -m benchmarks.questions` writes them into docs/performance.md.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from tests.sql_page import QUERIES, role_of
from tests.volumes.load import load
from tests.volumes.plans import explain
from tests.volumes.test_dashboards import as_sent, everything

from benchmarks.figures import Figure
from benchmarks.marks import PERFORMANCE, marks, rewrite
from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate

ROUNDS = 3
MARKS = marks("questions", command="python -m benchmarks.questions")


def _median(connection: Any, statement: str) -> float:
    """Milliseconds as PostgreSQL counts them, with what is read already in memory."""
    explain(connection, statement)
    return statistics.median(explain(connection, statement).milliseconds for _ in range(ROUNDS))


def _documented(connection: Any) -> list[Figure]:
    found = []
    for title, query in QUERIES.items():
        connection.execute(f"SET ROLE {role_of(title)}".encode())
        found.append(Figure(what=title, value=_median(connection, query), unit="ms"))
    return found


def _dashboards(connection: Any) -> list[Figure]:
    """The slowest question of each dashboard, for the time that it opens with."""
    connection.execute("SET ROLE jobtrail_reader")
    hardware = connection.execute("SELECT array_agg(DISTINCT hardware) FROM benchmark_run").fetchone()[0]
    slowest: dict[str, Figure] = {}
    for asked in everything():
        one = Figure(
            what=f"dashboard {asked.name.removesuffix(' (A)')}",
            value=_median(connection, as_sent(asked, tuple(hardware))),
            unit="ms",
        )
        if asked.dashboard not in slowest or one.value > slowest[asked.dashboard].value:
            slowest[asked.dashboard] = one
    return list(slowest.values())


def measure() -> list[Figure]:
    """Medians of warm runs on an embedded PostgreSQL 18 with its default settings."""
    with (
        tempfile.TemporaryDirectory(prefix="jobtrail-bench-pg-") as name,
        embedded_postgres.running(Path(name) / "postgres") as url,
    ):
        migrate.upgrade(url)
        began = time.perf_counter()
        load(url)
        seconds = time.perf_counter() - began
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
            made = [
                Figure(what="loading the year", value=seconds, unit="s"),
                Figure(what="the year on disk", value=size / 1e9, unit="GB"),
            ]
            return made + answers(connection)


def answers(connection: Any) -> list[Figure]:
    """Every question to a database that holds the year."""
    return _documented(connection) + _dashboards(connection)


def write(figures: list[Figure]) -> None:
    """Put the table into docs/performance.md, over the one that is there."""
    rows = [f"| {one.what.replace('|', '/')} | {_spoken(one.value)} {one.unit} |\n" for one in figures]
    rewrite(PERFORMANCE, [(MARKS, f"\n| question | time |\n|---|---|\n{''.join(rows)}\n")])


def _spoken(value: float) -> str:
    return "< 0.1" if value < 0.1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


if __name__ == "__main__":
    write(measure())
