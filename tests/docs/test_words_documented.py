"""Verdicts, lines of the log and variables of the environment: each that a program knows is told in the documents."""

from __future__ import annotations

import re
from pathlib import Path

from scripts import list_log_lines

from jobtrail.config import PREFIX
from jobtrail.core import facts
from jobtrail.domain.states import Verdict

REPOSITORY = Path(__file__).parents[2]
DOCS = "\n".join(page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs").glob("*.md"))
PROGRAMS = (
    *(REPOSITORY / "daemon").rglob("*.py"),
    *(REPOSITORY / "hooks").rglob("*.sh"),
    *(path for path in (REPOSITORY / "deploy" / "cluster").iterdir() if path.is_file()),
)


def test_every_verdict_is_explained() -> None:
    text = (REPOSITORY / "docs" / "why.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert sorted(told) == sorted(Verdict)


def test_every_variable_is_told() -> None:
    """Those of settings have two underscores or a row in docs/configuration.md, which has a test of its own."""
    named = {
        name
        for path in PROGRAMS
        for name in re.findall(rf"\b{PREFIX}[A-Z]\w*[A-Z0-9]\b", path.read_text(encoding="utf-8"))
        if "__" not in name
    }
    assert {"JOBTRAIL_CONFIG", "JOBTRAIL_SOCKET", "JOBTRAIL_SPOOL"} <= named
    assert sorted(name for name in named if not re.search(rf"\b{name}\b", DOCS)) == []


def test_the_page_of_log_lines_is_what_the_program_says() -> None:
    """Made by `python -m scripts.list_log_lines`."""
    assert list_log_lines.main(["--check"]) == 0


def test_every_fact_has_a_line() -> None:
    """What the daemon tells about itself is on the page, and says in its docstring what it means."""
    told = {fact for _, _, fact in list_log_lines.told()}
    known = {one for one in vars(facts).values() if isinstance(one, type) and issubclass(one, facts.Fact)}
    assert known - {facts.Fact} <= told
