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
        table = _table(node.get("Relation Name", ""))
        if table is None:
            continue
        seen = round(sum(node.get(name, 0) for name in LOOKED_AT) * node["Actual Loops"])
        reading.read[table] += seen
        if node["Node Type"] == "Seq Scan" and seen:  # the partitions of days to come are empty
            reading.scanned.add(table)
    return reading


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _table(relation: str) -> str | None:
    """The big table that a relation is, or is a partition of."""
    return next((name for name in BIG if relation == name or relation.removeprefix(f"{name}_").isdigit()), None)
