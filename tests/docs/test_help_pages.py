"""`--help`: what each command says of itself reads well in a terminal of 80 columns, and its examples are ones."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from scripts import list_options
from typer.testing import CliRunner

from jobtrail.cli.commands import application
from jobtrail.cli.help_pages import CODES, EXAMPLES, folded

COLUMNS = 80
TREE = {" ".join(path[1:]): command for path, command in list_options.commands(typer.main.get_command(application))}
COMMANDS = {name: command for name, command in TREE.items() if not hasattr(command, "list_commands")}


def shown(name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of a command's help."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("TERMINAL_WIDTH", str(COLUMNS))
    told = CliRunner().invoke(application, [*name.split(), "--help"])
    assert told.exit_code == 0
    return [line.rstrip() for line in told.output.splitlines()]


@pytest.mark.parametrize("name", TREE)
def test_paragraphs_are_filled_and_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line ends before the next word would not fit, and a paragraph ends with an empty line."""
    lines = shown(name, monkeypatch)
    assert all(len(line) <= COLUMNS for line in lines)
    words = [line.strip() for line in lines[2 : next(at for at, line in enumerate(lines) if line.startswith("╭"))]]
    told = "\n".join(words).strip("\n").split("\n\n")
    told = told[1:] if told[0].startswith("Usage:") else told
    wanted = folded(TREE[name].help).split("\n\n")
    assert [re.sub(r"\s+", " ", paragraph) for paragraph in told] == [re.sub(r"\s+", " ", text) for text in wanted]
    for paragraph in told:
        if paragraph.startswith("Example"):
            continue
        for line, after in zip(paragraph.splitlines(), paragraph.splitlines()[1:], strict=False):
            assert len(line) + 1 + len(after.split()[0]) > COLUMNS - 2, f"{line!r} ends early"


@pytest.mark.parametrize("name", [name for name in TREE if name not in COMMANDS])
def test_a_list_of_commands_has_a_line_for_each(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(name, monkeypatch)
    box = lines[next(at for at, line in enumerate(lines) if line.startswith("╭─ Commands")) + 1 :]
    rows = [line for line in box if line.startswith("│")]
    context = typer.Context(TREE[name], info_name=name)
    members = [member for member in TREE[name].list_commands(context) if f"{name} {member}".strip() in TREE]
    assert [re.split(r"\s+", row)[1] for row in rows] == members


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_one_of_that_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in the help, and the command takes it."""
    monkeypatch.chdir(tmp_path)
    for example in EXAMPLES[name]:
        assert f"\n  {example}" in COMMANDS[name].help
        words = [word for word in shlex.split(example) if not re.match(r"[A-Z_]+=", word)]
        assert words.pop(0) == "jobtrail"
        words = words[2:] if words[0] == "--config" else words
        depth = len(name.split())
        assert words[:depth] == name.split()
        command: Any = COMMANDS[name]
        with suppress(typer.Exit), command.make_context(name, words[depth:]):  # some options print and end it
            pass


def test_there_are_no_words_on_commands_that_are_not() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    assert set(CODES) <= set(COMMANDS)


def test_only_what_is_indented_keeps_its_lines() -> None:
    assert folded("a\nb\n\nExample:\n  c\n  d\n\ne\nf\n") == "a b\n\nExample:\n  c\n  d\n\ne f"
