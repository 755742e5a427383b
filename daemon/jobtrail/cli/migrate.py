"""`jobtrail migrate`: bring the database to the schema of this release."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.output import console, error_console
from jobtrail.cli.settings import database_url, settings
from jobtrail.domain.errors import ConfigError, JobtrailError, StoreUnavailable


def run_migrate(
    context: typer.Context,
    sql: Annotated[
        bool, typer.Option("--sql", help="print the SQL for an administrator instead of running it")
    ] = False,
    revision: Annotated[str, typer.Option(help="how far; with --sql also a range such as 0001:head")] = "head",
    check: Annotated[bool, typer.Option("--check", help="change nothing; exit 1 when revisions are missing")] = False,
) -> None:
    """Create or upgrade the tables of the database.

    Each revision is a transaction of its own. Needs a login that may create tables, and roles the first time: the table
    owner, not the daemon's own login.
    """
    from jobtrail.adapters.postgres import migrate

    try:
        if sql:
            sys.stdout.write(migrate.sql(revision))
            return
        url = database_url(settings(context))
        if check:
            _check(migrate.current(url), migrate.head())
            return
        _upgrade(url, revision)
    except StoreUnavailable as error:
        error_console().print(f"jobtrail migrate: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.UNREACHABLE) from error
    except (ConfigError, JobtrailError) as error:
        error_console().print(f"jobtrail migrate: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.USAGE) from error


def _upgrade(url: str, revision: str) -> None:
    from jobtrail.adapters.postgres import migrate

    out = console()
    applied: list[str] = []

    def tell(name: str, does: str) -> None:
        applied.append(name)
        out.print(f"applied {name}: {does}", markup=False)

    migrate.upgrade(url, revision, progress=tell)
    if not applied:
        out.print("nothing to do: the database is up to date")


def _check(current: str | None, head: str) -> None:
    if current == head:
        console().print(f"up to date at {head}", markup=False)
        return
    console().print(f"the database is at {current or 'no revision'}, this release needs {head}", markup=False)
    raise typer.Exit(exit_codes.FAILED)
