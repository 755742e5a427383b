"""Asks the daemon of this machine about benchmarks, and the database where no daemon answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.daemon_client import SOCKET_VARIABLE, first_reply, sockets
from jobtrail.cli.output import error_console
from jobtrail.cli.settings import readable_settings
from jobtrail.config import Config
from jobtrail.domain.errors import InvalidEvent, StoreUnavailable

if TYPE_CHECKING:
    from jobtrail.adapters.postgres import PostgresBenchmarkReader

Row = dict[str, Any]
Question = Callable[["PostgresBenchmarkReader"], Awaitable[Any]]

__all__ = ["SOCKET_VARIABLE", "Row", "ask", "readable_settings", "sockets", "tell"]
BASE = "/v1/benchmarks"


class Answer(msgspec.Struct, frozen=True):
    """What the daemon said."""

    status: int
    body: Row

    @property
    def message(self) -> str:
        """Why it refused."""
        return str(self.body.get("message", "no reason given"))


def ask(config: Config, path: str, words: Mapping[str, str | int | None], from_database: Question) -> Row:
    """The answer of a daemon, else of the database; what goes wrong ends the command with its exit code."""
    given = {name: str(value) for name, value in words.items() if value is not None}
    answer, problem = asyncio.run(_ask_daemons(config, "GET", path, given, None))
    if answer is not None and answer.status == 200:
        return answer.body
    if answer is not None and answer.status != 503:
        _end(answer)
    why = problem if answer is None else answer.message
    if not config.database.url:
        _fail(f"{why}; and no database is configured (database.url)", exit_codes.UNREACHABLE)
    return _ask_database(config, from_database)


def tell(config: Config, path: str, body: Row) -> Row:
    """Send something to a daemon and return its answer; what goes wrong ends the command with its exit code."""
    answer, problem = asyncio.run(_ask_daemons(config, "POST", path, {}, body))
    if answer is None:
        _fail(problem, exit_codes.UNREACHABLE)
    if answer.status >= 400:
        _end(answer)
    return answer.body


def _end(answer: Answer) -> NoReturn:
    codes = {400: exit_codes.USAGE, 404: exit_codes.NOT_FOUND, 503: exit_codes.UNREACHABLE}
    _fail(answer.message, codes.get(answer.status, exit_codes.FAILED))


def _fail(message: str, code: int) -> NoReturn:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
    raise typer.Exit(code)


async def _ask_daemons(
    config: Config, method: str, path: str, words: Mapping[str, str], body: Row | None
) -> tuple[Answer | None, str]:
    """The first answer there is, or why there is none."""
    try:
        reply, problem = await first_reply(config, method, f"{BASE}{path}", words=words, body=body)
        return (None, problem) if reply is None else (Answer(reply.status, reply.json()), "")
    except StoreUnavailable as error:
        return None, str(error)


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
