"""The command group: names, options they share, and which module each lives in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import jobtrail
from jobtrail.cli import exit_codes
from jobtrail.cli.lazy import LazyGroup

# command → module, function. A command's module is imported when it runs, so that `serve` starts without the rest.
COMMANDS = {
    "serve": ("serve_command", "run_serve"),
    "demo": ("demo", "run_demo"),
    "exec": ("exec", "run_command"),
    "migrate": ("migrate", "run_migrate"),
    "import-sacct": ("import_sacct", "run_import"),
    "jobs": ("jobs", "application"),
    "report": ("report", "run_report"),
    "top": ("top", "run_top"),
    "audit": ("audit", "application"),
    "bench": ("bench.commands", "application"),
    "doctor": ("doctor.command", "run_doctor"),
    "node-token": ("node_token", "application"),
    "web-token": ("web_access", "run_token"),
    "web-user": ("web_access", "run_user"),
}
# What a command needs beyond a plain registration: `exec` takes everything after its name as the command.
CONTEXT_SETTINGS: dict[str, dict[str, Any]] = {
    "exec": {"ignore_unknown_options": True, "allow_interspersed_args": False},
}


class Commands(LazyGroup):
    """The commands of `jobtrail`."""

    members = COMMANDS
    settings = CONTEXT_SETTINGS


application = typer.Typer(
    cls=Commands,
    epilog="Exit codes: 0 done · 1 failed or differences found · 2 wrong usage or setting · 3 daemon or database "
    "unreachable · 4 no such job, run, recipe or metric. `exec` passes on the code of its command.",
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
    """Audited job observability for Slurm clusters.

    `jobtrail COMMAND --help` tells what a command does and shows an example.
    """
    context.obj = config


def run() -> None:
    """One call of the program. Output that cannot be written, as to a full disk, ends it with a message."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as `>&-` does
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    try:
        try:
            application()
        finally:
            sys.stdout.flush()  # here, and not while the interpreter ends, which would tell of it in its own words
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # whoever read it has enough, as `head` does
            problem = ""
        else:
            problem = f"jobtrail: {error.filename or 'the output'} cannot be written: {error.strerror}\n"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it goes nowhere
        sys.stderr.write(problem)
        sys.exit(exit_codes.FAILED)
