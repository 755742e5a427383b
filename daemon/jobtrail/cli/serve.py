"""`jobtrail serve`: the daemon."""

from __future__ import annotations

import asyncio
import signal

import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.settings import settings
from jobtrail.config import Config
from jobtrail.domain.errors import ConfigError, JobtrailError


def run_serve(context: typer.Context) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    config = settings(context)
    from jobtrail.adapters.telemetry import configure_logging

    configure_logging(config.logging.level, config.logging.format)
    try:
        asyncio.run(_serve_until_signal(config))
    except ConfigError as error:
        typer.echo(f"jobtrail serve: {error}", err=True)
        raise typer.Exit(exit_codes.USAGE) from error
    except JobtrailError as error:
        typer.echo(f"jobtrail serve: {error}", err=True)
        raise typer.Exit(exit_codes.FAILED) from error


async def _serve_until_signal(config: Config) -> None:
    from jobtrail.app import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)
