"""The settings of this call: `--config`, else JOBTRAIL_CONFIG, else the default places; then the environment."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from jobtrail import config as configuration
from jobtrail.cli import exit_codes
from jobtrail.cli.output import error_console
from jobtrail.domain.errors import ConfigError


def settings(context: typer.Context) -> configuration.Config:
    """Load the settings or exit with a message naming the wrong one. Who may not read the default file, and names a
    database in DATABASE_URL, as an auditor may, does without it."""
    named: Path | None = context.obj
    withheld = bool(os.environ.get("DATABASE_URL")) and _is_default_withheld(context)
    try:
        return configuration.load(None if withheld else named or configuration.find_file(os.environ), os.environ)
    except ConfigError as error:
        error_console().print(f"jobtrail: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.USAGE) from error


def readable_settings(context: typer.Context) -> configuration.Config:
    """The settings; without those of the default file where the caller may not read it, as ordinary users may not: it
    can hold a password, and the sockets are at their usual places."""
    return configuration.load(None, os.environ) if _is_default_withheld(context) else settings(context)


def _is_default_withheld(context: typer.Context) -> bool:
    """Whether nobody named a settings file and the caller may not read the one at its usual place."""
    if context.obj is not None or os.environ.get("JOBTRAIL_CONFIG"):
        return False
    found = configuration.find_file(os.environ)
    return found is not None and not os.access(found, os.R_OK)


def database_url(config: configuration.Config) -> str:
    """The database URL, or exit saying where to set it."""
    if config.database.url and not config.forwards_to_servers:
        return config.database.url
    problem = "no database is configured: set `database.url` in the settings file, or DATABASE_URL=postgresql://…"
    if config.forwards_to_servers:
        problem = (
            f"this node forwards to {config.database.url} and has no database: ask there, "
            "or with DATABASE_URL=postgresql://…"
        )
    error_console().print(f"jobtrail: {problem}", style="red", markup=False)
    raise typer.Exit(exit_codes.USAGE)
