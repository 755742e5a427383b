"""`jobtrail serve` on the command line, with its help."""

from __future__ import annotations

import typer

from jobtrail.cli.serve import run


def run_serve(context: typer.Context) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    It takes hooks on the Unix socket, shows /metrics over TCP, and brings events to the database.
    """
    raise typer.Exit(run(context.obj))
