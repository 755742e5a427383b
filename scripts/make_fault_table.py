"""Writes what the fault tests measured into docs/promises.md, between its two marks.

Usage: python -m scripts.make_fault_table [FIGURES]    (by default .faults/figures.jsonl, which the tests append to)

Of each test the last run counts, a full one before a quick one. Rows of tests that did not run stay as they are; those
of tests that are no more go.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "promises.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
HEAD = "| fault | test | run | figures |\n|---|---|---|---|\n"
NOT_FIGURES = ("id", "test", "full", "seed")
ROW = re.compile(r"^\| (?P<id>[^|]+) \| `(?P<test>[^`]+)`(?: \((?P<case>[^|]+)\))? \|", re.MULTILINE)


def last_runs(path: Path) -> dict[str, dict[str, Any]]:
    """The run of each test that counts."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        held = found.get(record["test"])
        if held is None or record["full"] or not held["full"]:
            found[record["test"]] = record
    return found


def row(record: dict[str, Any]) -> str:
    """A line of the table."""
    test, _, case = record["test"].partition("[")
    name = f"`{test}`" + (f" ({case.rstrip(']')})" if case else "")
    figures = "; ".join(
        f"{key.replace('_', ' ')} {value:,}" if isinstance(value, int | float) else f"{key.replace('_', ' ')} {value}"
        for key, value in record.items()
        if key not in NOT_FIGURES and value is not None
    )
    return f"| {record['id']} | {name} | {'full' if record['full'] else 'quick'} | {figures} |"


def rows_there(page: str) -> dict[str, str]:
    """The rows that the page has, by test and case."""
    table = page[page.index(BEGIN) : page.index(END)]
    found = {}
    for line in table.splitlines():
        if match := ROW.match(line):
            found[match["test"] + (f"[{match['case']}]" if match["case"] else "")] = line
    return found


def is_there(test: str) -> bool:
    """Whether the sources still have a test."""
    path, _, name = test.partition("[")[0].partition("::")
    file = REPOSITORY / path
    return file.exists() and re.search(rf"^(async )?def {name}\(", file.read_text(encoding="utf-8"), re.M) is not None


def main(given: list[str]) -> int:
    """Write the table."""
    path = Path(given[0]) if given else REPOSITORY / ".faults" / "figures.jsonl"
    page = PAGE.read_text(encoding="utf-8")
    rows = rows_there(page) | {test: row(record) for test, record in last_runs(path).items()}
    rows = {test: line for test, line in rows.items() if is_there(test)}
    ordered = sorted(rows.values(), key=lambda line: (not line.startswith("| T-"), line))
    before, after = page[: page.index(BEGIN)], page[page.index(END) :]
    PAGE.write_text(f"{before}{BEGIN}\n{HEAD}" + "\n".join(ordered) + f"\n{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
