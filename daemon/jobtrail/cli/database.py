"""Runs a command's questions against the database and turns its errors into exit codes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.output import error_console
from jobtrail.cli.settings import database_url
from jobtrail.config import Config
from jobtrail.domain.errors import ConfigError, NotFound, StoreUnavailable

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

Result = TypeVar("Result")


def ask(config: Config, question: Callable[[Pool], Awaitable[Result]]) -> Result:
    """The answer to `question`, asked on a connection pool; errors end the command with their exit code."""
    url = database_url(config)
    try:
        return asyncio.run(_ask(url, config, question))
    except StoreUnavailable as error:
        _fail(f"the database cannot be asked: {error}")
        raise typer.Exit(exit_codes.UNREACHABLE) from error
    except NotFound as error:
        _fail(str(error))
        raise typer.Exit(exit_codes.NOT_FOUND) from error
    except ConfigError as error:
        _fail(str(error))
        raise typer.Exit(exit_codes.USAGE) from error


async def _ask(url: str, config: Config, question: Callable[[Pool], Awaitable[Result]]) -> Result:
    from jobtrail.adapters.postgres import close_pool, open_pool

    pool = await open_pool(url, size=2, timeout_seconds=config.database.timeout_seconds)
    try:
        return await question(pool)
    finally:
        await close_pool(pool, timeout_seconds=2.0)


def _fail(message: str) -> None:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
