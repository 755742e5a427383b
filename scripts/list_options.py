"""Writes docs/cli-options.md: every command with its arguments and options, as the program itself declares them.

Usage: python -m scripts.list_options [--check]     (`--check` writes nothing; 1 when the page is another)
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from jobtrail.cli.commands import application

PAGE = Path(__file__).parents[1] / "docs" / "cli-options.md"
HEAD = """\
# Every option

What each command takes, made of the program by `python -m scripts.list_options`. What the commands are for, and what
their exit codes mean, is in [cli.md](cli.md). Every command has `-h` or `--help` as well.
"""


def commands(command: Any, path: tuple[str, ...] = ("jobtrail",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command that is not hidden, with the words that call it; a group before its members."""
    yield path, command
    context = typer.Context(command, info_name=path[-1])
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        member = command.get_command(context, name)
        if not member.hidden:
            yield from commands(member, (*path, name))


def page() -> str:
    """The text of docs/cli-options.md."""
    return HEAD + "".join(_section(path, command) for path, command in commands(typer.main.get_command(application)))


def _section(path: tuple[str, ...], command: Any) -> str:
    context = typer.Context(command, info_name=path[-1])
    rows = "".join(_row(one, context) for one in command.params if "--help" not in one.opts)
    if hasattr(command, "list_commands") and not rows:
        return ""
    told = "\n\n".join(_paragraph(one) for one in re.split(r"\n\s*\n", (command.help or "").strip("\n")))
    table = f"\n| argument or option | meaning |\n|---|---|\n{rows}" if rows else ""
    return f"\n## {' '.join(path)}\n{told}\n{table}"


def _row(parameter: Any, context: Any) -> str:
    """A row of the table; empty for what is hidden."""
    record = parameter.get_help_record(context)
    if record is None:
        return ""
    names, meaning = (re.sub(r"\s+", " ", text.strip()) for text in record)
    if parameter.param_type_name == "argument":  # its name says what it is
        names = re.sub(r" <[^>]*>$", "", names)
    return f"| <code>{_cell(names)}</code> | {_cell(meaning)} |\n"


def _cell(text: str) -> str:
    """Text of a cell; a bar as an entity, because renderers differ in what they make of an escaped one in code."""
    return html.escape(text, quote=False).replace("|", "&#124;")


def _paragraph(text: str) -> str:
    """A paragraph as Markdown; its indented lines, which are for a shell, are a block of code."""
    lines = text.splitlines()
    words = " ".join(line for line in lines if not line.startswith(" ")).replace("<", "&lt;")
    code = "\n".join(line.strip() for line in lines if line.startswith(" "))
    return "\n\n".join(filter(None, (words, code and f"```sh\n{code}\n```")))


def main(arguments: list[str]) -> int:
    """0 when the page was written or is as it should be."""
    made = page()
    if "--check" not in arguments:
        PAGE.write_text(made, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != made:
        print("docs/cli-options.md is not what the program says; run `python -m scripts.list_options`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
