"""A command group whose members are imported when they are used, so that one command starts without the rest."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from jobtrail.cli.help_pages import complete


class LazyGroup(TyperGroup):
    """`members` are command → module below `jobtrail.cli` and function; `settings` what Click is told beyond that;
    `prefix` what stands before their names."""

    members: ClassVar[dict[str, tuple[str, str]]] = {}
    settings: ClassVar[dict[str, dict[str, Any]]] = {}
    prefix: ClassVar[str] = ""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Names in the order people meet them."""
        return list(self.members)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in self.members:
            return None
        module_name, attribute = self.members[cmd_name]
        member = getattr(importlib.import_module(f"jobtrail.cli.{module_name}"), attribute)
        if isinstance(member, typer.Typer):
            command = typer.main.get_command(member)
        else:
            single = typer.Typer(add_completion=False)
            single.command(context_settings=self.settings.get(cmd_name))(member)
            command = typer.main.get_command(single)
        command.name = cmd_name
        complete(command, f"{self.prefix}{cmd_name}")
        return command
