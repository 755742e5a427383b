"""docs/cli.md and docs/cli-options.md tell every command, option and exit code, as the program has them."""

from __future__ import annotations

import ast
import inspect
import re
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from scripts import list_options

from jobtrail.cli import exit_codes
from jobtrail.cli.commands import application

REPOSITORY = Path(__file__).parents[2]
DAEMON = REPOSITORY / "daemon"
TEXT = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
TREE = {
    " ".join(path[1:]): command
    for path, command in list_options.commands(typer.main.get_command(application))
    if not hasattr(command, "list_commands")
}
CODES = {name: value for name, value in vars(exit_codes).items() if name.isupper()}
ALWAYS = {exit_codes.OK, exit_codes.USAGE}
INTERRUPTED = exit_codes.SIGNALLED + signal.SIGINT


def documented() -> dict[str, set[int]]:
    """The codes of each command, from the table."""
    table = TEXT.partition("| commands | codes |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", table, re.M)
    named = [(name, codes) for names, codes in rows for name in re.findall(r"`([\w -]+)`", names)]
    assert len(named) == len(dict(named)), "a command is in two rows"
    return {name: {int(code) for code in re.findall(r"\d+", codes)} for name, codes in named}


def module_of(command: Any) -> Path:
    """The file that a command is written in."""
    return Path(inspect.getfile(inspect.unwrap(command.callback)))


@cache
def codes_in(module: Path) -> frozenset[int]:
    """Exit codes that a file names."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    named = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in CODES]
    return frozenset(CODES[name] for name in named)


@cache
def reachable(module: Path) -> frozenset[Path]:
    """The files of the command line that a file imports, and those that these import, itself among them."""
    found, left = {module}, [module]
    while left:
        for node in ast.walk(ast.parse(left.pop().read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jobtrail.cli"):
                package = DAEMON / node.module.replace(".", "/")
                new = {package.with_suffix(".py"), *(package / f"{name.name}.py" for name in node.names)}
                new = {path for path in new if path.is_file()} - found
                found |= new
                left += new
    return frozenset(found)


def test_the_page_of_options_is_what_the_program_says() -> None:
    """Made by `python -m scripts.list_options`."""
    assert list_options.main(["--check"]) == 0


@pytest.mark.parametrize("name", TREE)
def test_a_command_is_listed(name: str) -> None:
    """In the table at the top, by itself or beside its siblings of the same group."""
    group, _, last = name.rpartition(" ")
    rows = [cell for cell in re.findall(r"^\| (`jobtrail [^|]+)\|", TEXT, re.M) if f"jobtrail {group}".strip() in cell]
    assert any(re.search(rf"[` ]{re.escape(last)}\b", cell) for cell in rows), f"docs/cli.md does not list {name}"


def test_each_command_has_its_codes() -> None:
    """Nothing is left out, and nothing is told of a command that there is not."""
    assert set(documented()) == set(TREE)
    assert set(CODES.values()) <= set().union(*documented().values())


@pytest.mark.parametrize("name", TREE)
def test_the_codes_are_those_that_the_command_can_give(name: str) -> None:
    """Each told code is one that its code, or what that calls, gives; and each that its file gives is told of a command
    of that file."""
    told, module = documented()[name], module_of(TREE[name])
    possible = ALWAYS.union(*(codes_in(path) for path in reachable(module)))
    assert told >= ALWAYS
    if exit_codes.SIGNALLED in possible:  # to which the signal's number is added
        possible = possible | {INTERRUPTED}
    assert told - possible == set()
    beside = [documented()[other] for other, command in TREE.items() if module_of(command) == module]
    assert codes_in(module) - {exit_codes.SIGNALLED} - set().union(*beside) == set()
