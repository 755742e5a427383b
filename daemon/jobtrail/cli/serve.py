"""The daemon's start: settings, logging, signals. Loads neither typer nor rich: they would stay in its memory."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jobtrail import config as configuration
from jobtrail.cli import exit_codes
from jobtrail.domain.errors import ConfigError, JobtrailError


def plain_call(arguments: Sequence[str]) -> tuple[bool, Path | None]:
    """Whether the arguments are just `[-c FILE] serve`, as the unit file calls it, and the FILE."""
    match arguments:
        case ["serve"]:
            return True, None
        case ["-c" | "--config", path, "serve"]:
            return True, Path(path)
        case [option, "serve"] if option.startswith("--config="):
            return True, Path(option.removeprefix("--config="))
        case _:
            return False, None


def run(config_path: Path | None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    # structlog loads rich wherever it is installed, for coloured tracebacks: 5 MB on every node that nobody looks at.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    try:
        config = configuration.load(config_path or configuration.find_file(os.environ), os.environ)
        from jobtrail.adapters.log_lines import configure_logging

        configure_logging(config.logging.level, config.logging.format)
        asyncio.run(_serve_until_signal(config))
    except ConfigError as error:
        sys.stderr.write(f"jobtrail serve: {error}\n")
        return exit_codes.USAGE
    except JobtrailError as error:
        sys.stderr.write(f"jobtrail serve: {error}\n")
        return exit_codes.FAILED
    return exit_codes.OK


async def _serve_until_signal(config: configuration.Config) -> None:
    from jobtrail.app import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)
