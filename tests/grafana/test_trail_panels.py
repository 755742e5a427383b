"""What the panels on the trail say of a trail of which the beginning was removed in order, and of one with a hole."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.grafana import macros
from tests.grafana.shipped import questions
from tests.sql_page import QUERIES

CHAIN = uuid.UUID(int=7)


def hold(connection: Any, numbers: list[int], *, pruned: int) -> None:
    connection.execute(
        "INSERT INTO audit_chain (chain_id, node, head_seq, head_hash, pruned_seq)"
        " VALUES (%s, 'n1', %s, sha256('a'), %s)",
        (CHAIN, numbers[-1], pruned),
    )
    for number in numbers:
        connection.execute(
            "INSERT INTO audit_log (chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at,"
            " received_at, stored_at, node) VALUES (%s, %s, gen_random_uuid(), 'gap', sha256(%s::text::bytea),"
            " sha256('b'), sha256('c'), now(), now(), now(), 'n1')",
            (CHAIN, number, number),
        )


def missing(connection: Any, query: str) -> list[tuple[int, int]]:
    asked = connection.execute(query.encode())
    columns = [column.name for column in asked.description]
    if columns == ["gaps"]:
        return [(0, 0)] * asked.fetchone()[0]
    places = columns.index("first_missing"), columns.index("last_missing")
    return [(row[places[0]], row[places[1]]) for row in asked.fetchall()]


PANELS = {
    one.panel: str(one.target["rawSql"]) for one in questions("rawSql") if one.panel in {"Gaps", "Missing events"}
}
DOCUMENTED = {title: query for title, query in QUERIES.items() if title.startswith("Gaps in")}


@pytest.mark.parametrize("title", [*PANELS, *DOCUMENTED])
def test_what_was_removed_in_order_is_no_gap(database: str, title: str) -> None:
    """jobtrail_prune notes where each chain begins now; events that are missing behind that are gaps as before."""
    now = datetime.now(UTC)  # of the test, not of its collection, which may be long ago
    panels = {
        panel: macros.sql(query, {}, now - timedelta(hours=1), now + timedelta(hours=1), interval_seconds=60)
        for panel, query in PANELS.items()
    }
    query = {**panels, **DOCUMENTED}[title]
    with psycopg.connect(database) as connection:
        hold(connection, [5, 6, 7], pruned=4)
        assert missing(connection, query) == []
        connection.rollback()
        hold(connection, [5, 6, 9], pruned=4)
        assert missing(connection, query) in ([(7, 8)], [(0, 0)])
        connection.rollback()
        hold(connection, [1, 2, 5], pruned=0)
        assert missing(connection, query) in ([(3, 4)], [(0, 0)])
