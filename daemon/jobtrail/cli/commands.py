"""The command group: names, options they share, and which module each lives in."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import jobtrail

# command → module, function. A command's module is imported when it runs, so that `serve` starts without the rest.
COMMANDS = {
    "serve": ("serve_command", "run_serve"),
    "demo": ("demo", "run_demo"),
    "exec": ("exec", "run_command"),
    "migrate": ("migrate", "run_migrate"),
    "jobs": ("jobs", "application"),
    "audit": ("audit", "application"),
}
# What a command needs beyond a plain registration: `exec` takes everything after its name as the command.
CONTEXT_SETTINGS: dict[str, dict[str, Any]] = {
    "exec": {"ignore_unknown_options": True, "allow_interspersed_args": False},
}


class LazyCommands(TyperGroup):
    """A command group whose members are imported when used."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Names in the order people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module_name, attribute = COMMANDS[cmd_name]
        member = getattr(importlib.import_module(f"jobtrail.cli.{module_name}"), attribute)
        if isinstance(member, typer.Typer):
            command = typer.main.get_command(member)
        else:
            single = typer.Typer(add_completion=False)
            single.command(context_settings=CONTEXT_SETTINGS.get(cmd_name))(member)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command


application = typer.Typer(
    cls=LazyCommands,
    help="Audited job observability for Slurm clusters.",
    epilog="Exit codes: 0 done · 1 failed or differences found · 2 wrong usage or setting · 3 daemon or database "
    "unreachable · 4 no such job. `exec` passes on the code of its command.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jobtrail {jobtrail.__version__}")
        raise typer.Exit


@application.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="settings file; default: $JOBTRAIL_CONFIG, /etc/jobtrail/jobtrail.yaml, .jobtrail/jobtrail.yaml",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Audited job observability for Slurm clusters."""
    context.obj = config
