"""Every query of docs/sql.md is answered on a year's data by its role, and reads no large table from end to end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sql_page import QUERIES, role_of
from tests.volumes.bounds import SCOPES, WHOLE, scope_of, whole_of
from tests.volumes.plans import explain

PAGES_A_ROW = 12  # looks at pages of 8 KiB: an index is three or four pages deep, and a summary joins some tables
OF_ONE_RUN = {"benchmark_metric": 16, "benchmark_energy": 4, "job_nodes": 4}  # rows that a run has
# A period of samples is found by blocks of pages (BRIN): at its edges all rows of a block are looked at.
BLOCK_RANGE = {"job_samples": 10_000, "gpu_samples": 10_000, "energy_samples": 15_000}


def count(connection: Any, statement: str) -> int:
    (number,) = connection.execute(statement.encode()).fetchone()
    return int(number)


@pytest.mark.parametrize("title", QUERIES)
def test_it_is_answered_and_reads_what_it_is_about(connection: Any, title: str) -> None:
    scope = scope_of(title)
    counted = None if scope is None else count(connection, scope)
    connection.execute(f"SET ROLE {role_of(title)}".encode())
    reading = explain(connection, QUERIES[title])
    assert reading.rows > 0, "no answer"
    assert reading.scanned <= whole_of(title), f"read from end to end: {reading.scanned}"
    about = reading.rows if counted is None else counted
    too_many = {
        table: rows
        for table, rows in reading.read.items()
        if rows > 1.25 * about * OF_ONE_RUN.get(table, 1) + BLOCK_RANGE.get(table, 100)
    }
    assert not too_many, f"rows looked at, of a question about {about}; indexes: {sorted(reading.indexes)}"
    assert reading.pages <= PAGES_A_ROW * about + 500


def test_every_bound_is_of_a_query() -> None:
    assert [name for name in (*SCOPES, *WHOLE) if not any(title.startswith(name) for title in QUERIES)] == []


def titled(beginning: str) -> str:
    (query,) = [query for title, query in QUERIES.items() if title.startswith(beginning)]
    return query


def test_what_is_wrong_with_the_trail_is_found(connection: Any) -> None:
    """Exactly what trail.sql left out or changed."""

    def asked(beginning: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = connection.execute(titled(beginning).encode()).fetchall()
        return found

    (recent,) = asked("Gaps in the trail")
    every = asked("Gaps in the whole trail")
    assert (recent[0], recent[2], recent[3]) == ("n011", recent[2], recent[2])
    assert [(row[0], row[3] - row[2] + 1) for row in every] == [("n010", 3), ("n011", 1)]
    assert every[0][2:4] == (100, 102)
    assert [row[0] for row in asked("Links that do not hold")] == ["n012"]
    assert [(row[0], row[2] - row[3]) for row in asked("Chains whose end")] == [("n013", 2)]
    assert "n250" in [row[0] for row in asked("Chains that fell silent")]
    assert "n007" not in [row[0] for row in asked("Chains that fell silent")]
    assert [row[0] for row in asked("Nodes that began another chain")] == ["n007"]
    late = asked("Late or backdated")
    assert {row[2].days for row in late} == {0, 2}
    assert {row[3].seconds // 3600 for row in late} == {0, 5}
