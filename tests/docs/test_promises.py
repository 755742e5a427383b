"""Every test that docs/promises.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from scripts.make_fault_table import ROW, is_there

REPOSITORY = Path(__file__).parents[2]


def test_every_named_test_exists() -> None:
    """A renamed or removed test would leave a promise without proof."""
    text = (REPOSITORY / "docs" / "promises.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 20
    missing = [f"{path}::{name}" for path, name in named if name not in _tests_in(REPOSITORY / path)]
    assert missing == []


def test_every_file_of_fault_tests_proves_a_promise() -> None:
    """A fault that nobody promises anything about is not worth its time."""
    text = (REPOSITORY / "docs" / "promises.md").read_text(encoding="utf-8").partition("<!-- figures: begin -->")[0]
    files = sorted(path.name for path in (REPOSITORY / "tests" / "faults").glob("test_*.py"))
    assert len(files) > 20
    assert [name for name in files if f"`tests/faults/{name}::" not in text] == []


def test_the_table_of_figures_has_no_row_of_a_test_that_is_no_more() -> None:
    """scripts/make_fault_table.py leaves them out."""
    text = (REPOSITORY / "docs" / "promises.md").read_text(encoding="utf-8").partition("<!-- figures: begin -->")[2]
    named = [row["test"] for row in ROW.finditer(text)]
    assert len(named) > 20
    assert [test for test in named if not is_there(test)] == []


def _tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_linked_document_exists() -> None:
    """README and docs name files of the project by path; those that a program makes for its user, .gitignore names."""
    pattern = r"(?<![\w/.-])((?:docs|deploy|hooks|tests|scripts|benchmarks)/[\w./-]+\w)"
    documents = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    named = [(document.name, path) for document in documents for path in re.findall(pattern, document.read_text())]
    made = tuple(line.strip("/") for line in (REPOSITORY / ".gitignore").read_text().splitlines() if "/" in line[:-1])
    missing = [(name, path) for name, path in named if not path.startswith(made) and not (REPOSITORY / path).exists()]
    assert missing == []


def test_every_command_is_documented() -> None:
    """docs/cli.md lists each command and sub-command, and every exit code."""
    from jobtrail.cli import exit_codes
    from jobtrail.cli.commands import COMMANDS

    text = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`jobtrail {name}" not in text] == []
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    assert [code for code in codes if not re.search(rf"\b{code}\b", text)] == []
