"""Tables that benchmarks write into the documentation: each between two marks, over the one that is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PERFORMANCE = Path(__file__).parents[1] / "docs" / "performance.md"


class Marks(NamedTuple):
    """The lines around a table. They stay; what is between them is written anew."""

    begin: str
    end: str


class NoMarks(ValueError):
    """A page does not have the marks, each once and in order; the message names page and marks."""


def marks(name: str, *, command: str) -> Marks:
    """Comments that no reader sees, and that tell a writer of the page who writes the table."""
    return Marks(f"<!-- {name}: written by {command} -->\n", f"<!-- {name}: end -->\n")


def rewrite(page: Path, tables: Iterable[tuple[Marks, str]]) -> None:
    """Put tables into a page, all of them or none. Raises NoMarks."""
    text = page.read_text(encoding="utf-8")
    for around, table in tables:
        text = _replaced(page, text, around, table)
    page.write_text(text, encoding="utf-8")


def require(page: Path, around: Marks) -> None:
    """Raise NoMarks unless the page has a place for a table."""
    _replaced(page, page.read_text(encoding="utf-8"), around, "")


def _replaced(page: Path, text: str, around: Marks, table: str) -> str:
    before, found, rest = text.partition(around.begin)
    _, ended, after = rest.partition(around.end)
    if not found or not ended or around.begin in rest:
        raise NoMarks(f"{page} is to have the lines {around.begin.strip()!r} and {around.end.strip()!r}, each once")
    return f"{before}{around.begin}{table}{around.end}{after}"
