"""What a statement reads, table by table, as EXPLAIN (ANALYZE, BUFFERS) says it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Read from end to end they would take seconds here, and minutes in a few years.
BIG = (
    "audit_log", "audit_payload", "job_samples", "gpu_samples", "energy_samples", "jobs", "job_nodes", "job_gpus",
    "benchmark_metric",
)  # fmt: skip
# A partition of a day or month that has just begun has few rows, or a third of them and more are asked for: then to
# read all of it is right. Later in the day the same question goes through the index.
FEW_ROWS, SHARE = 1_000, 1 / 3
LOOKED_AT = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")  # of one loop


@dataclass
class Reading:
    """How a statement was answered."""

    rows: int
    pages: int  # of 8 KiB, each as often as it was looked at
    milliseconds: float
    read: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # big table -> rows looked at, kept or not
    scanned: set[str] = field(default_factory=set)  # big tables read from end to end
    indexes: set[str] = field(default_factory=set)


def explain(connection: Any, statement: str) -> Reading:
    """Run the statement and say what it read."""
    (answer,) = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}".encode()).fetchone()
    (top,) = answer
    plan = top["Plan"]
    reading = Reading(
        rows=round(plan["Actual Rows"]),
        pages=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        milliseconds=top["Execution Time"],
    )
    for node in _nodes(plan):
        if "Index Name" in node:
            reading.indexes.add(node["Index Name"])
        relation = node.get("Relation Name", "")
        table = _table(relation)
        if table is None:
            continue
        seen = round(sum(node.get(name, 0) for name in LOOKED_AT) * node["Actual Loops"])
        reading.read[table] += seen
        if node["Node Type"] == "Seq Scan" and seen:  # the partitions of days to come are empty
            kept = node["Actual Rows"] * node["Actual Loops"]
            if relation == table or (seen > FEW_ROWS and kept < SHARE * seen):
                reading.scanned.add(table)
    return reading


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _table(relation: str) -> str | None:
    """The big table that a relation is, or is a partition of."""
    return next((name for name in BIG if relation == name or relation.removeprefix(f"{name}_").isdigit()), None)
