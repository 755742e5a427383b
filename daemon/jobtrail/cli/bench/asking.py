"""Asks a daemon about benchmarks: the one that is named, else that of this machine, else the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.daemon_client import first_answer
from jobtrail.cli.output import error_console
from jobtrail.cli.whom import Whom
from jobtrail.client_calls import ApiError, Caller, Unreachable
from jobtrail.config import Config
from jobtrail.domain.errors import InvalidEvent

if TYPE_CHECKING:
    from jobtrail.adapters.postgres import PostgresBenchmarkReader

Row = dict[str, Any]
Question = Callable[["PostgresBenchmarkReader"], Awaitable[Any]]

BASE = "/v1/benchmarks"
UNAVAILABLE = 503


def ask(whom: Whom, path: str, words: Mapping[str, str | int | None], from_database: Question) -> Row:
    """The answer of a daemon, else of the database; what goes wrong ends the command with its exit code."""
    try:
        return _of_daemon(whom, lambda daemon: daemon.ask("GET", f"{BASE}{path}", Row, words=words))
    except ApiError as error:
        if error.status != UNAVAILABLE:
            _end(whom, error)
        why = whom.words(error)
    except Unreachable as error:
        why = whom.unreachable(error)
    if not whom.database_url:
        _fail(why, exit_codes.UNREACHABLE)
    return _ask_database(whom.config, from_database)


def tell(whom: Whom, path: str, body: Row) -> Row:
    """Send something to a daemon and return its answer; what goes wrong ends the command with its exit code."""
    encoded = msgspec.json.encode(body)
    try:
        return _of_daemon(whom, lambda daemon: daemon.ask("POST", f"{BASE}{path}", Row, body=encoded))
    except ApiError as error:
        _end(whom, error)
    except Unreachable as error:
        _fail(str(error), exit_codes.UNREACHABLE)


def _of_daemon(whom: Whom, question: Callable[[Caller], Awaitable[Row]]) -> Row:
    return asyncio.run(first_answer(whom.places, Caller, question))


def _end(whom: Whom, error: ApiError) -> NoReturn:
    codes = {400: exit_codes.USAGE, 404: exit_codes.NOT_FOUND, UNAVAILABLE: exit_codes.UNREACHABLE}
    _fail(whom.words(error), codes.get(error.status, exit_codes.FAILED))


def _fail(message: str, code: int) -> NoReturn:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
    raise typer.Exit(code)


def _ask_database(config: Config, question: Question) -> Row:
    """The answer in the form that the daemon's has."""
    from jobtrail.cli import database

    async def asked(pool: Any) -> Any:
        from jobtrail.adapters.postgres import PostgresBenchmarkReader

        seconds, most = config.database.timeout_seconds, config.benchmarks.max_error_ratio
        return await question(PostgresBenchmarkReader(pool, timeout_seconds=seconds, max_error_ratio=most))

    try:
        found = database.ask(config, asked)
    except InvalidEvent as error:
        _fail(str(error), exit_codes.USAGE)
    plain: Row = msgspec.json.decode(msgspec.json.encode(found, enc_hook=str))
    return plain
