"""Asks the daemon of this machine about benchmarks, and the database where no daemon answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import typer

from jobtrail import config as configuration
from jobtrail.cli import exit_codes
from jobtrail.cli.output import error_console
from jobtrail.cli.settings import settings
from jobtrail.config import Config
from jobtrail.domain.errors import InvalidEvent, StoreUnavailable

if TYPE_CHECKING:
    from jobtrail.adapters.postgres import PostgresBenchmarkReader

Row = dict[str, Any]
Question = Callable[["PostgresBenchmarkReader"], Awaitable[Any]]

BASE = "/v1/benchmarks"
ANSWER_SECONDS = 15.0
BUSY = 429
BUSY_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
SOCKET_VARIABLE = "JOBTRAIL_POKE_SOCKET"


class Answer(msgspec.Struct, frozen=True):
    """What the daemon said."""

    status: int
    body: Row

    @property
    def message(self) -> str:
        """Why it refused."""
        return str(self.body.get("message", "no reason given"))


def readable_settings(context: typer.Context) -> Config:
    """The settings; without those of the default file where the caller may not read it, as ordinary users may not: it
    can hold a password, and the sockets are at their usual places."""
    if context.obj is None and not os.environ.get("JOBTRAIL_CONFIG"):
        found = configuration.find_file(os.environ)
        if found is not None and not os.access(found, os.R_OK):
            return configuration.load(None, os.environ)
    return settings(context)


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


def sockets(config: Config) -> list[str]:
    """Where a daemon may answer: where JOBTRAIL_POKE_SOCKET says, else the socket open to all users, else the other."""
    if named := os.environ.get(SOCKET_VARIABLE):
        return [named]
    return [path for path in (config.poke_socket, config.http.socket) if path]


async def _ask_daemons(
    config: Config, method: str, path: str, words: Mapping[str, str], body: Row | None
) -> tuple[Answer | None, str]:
    """The first answer there is, or why there is none."""
    problems = []
    for socket in sockets(config):
        try:
            return await _ask_patiently(socket, method, path, words, body), ""
        except StoreUnavailable as error:
            problems.append(str(error))
    return None, "; ".join(problems)


async def _ask_patiently(socket: str, method: str, path: str, words: Mapping[str, str], body: Row | None) -> Answer:
    """The answer; asked again for some seconds where another question of this user's is being answered."""
    for pause_seconds in BUSY_PAUSES_SECONDS:
        answer = await _ask_daemon(socket, method, path, words, body)
        if answer.status != BUSY:
            return answer
        await asyncio.sleep(pause_seconds)
    return await _ask_daemon(socket, method, path, words, body)


async def _ask_daemon(socket: str, method: str, path: str, words: Mapping[str, str], body: Row | None) -> Answer:
    """Raises StoreUnavailable when nobody answers who is a daemon."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket), timeout=timeout) as session,
            session.request(method, f"http://localhost{BASE}{path}", params=words, json=body) as response,
        ):
            return Answer(response.status, msgspec.json.decode(await response.read(), type=Row))
    except aiohttp.ClientConnectorError as error:
        raise StoreUnavailable(f"no daemon answers on {socket}: {error.os_error.strerror}") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise StoreUnavailable(f"no daemon answers on {socket}: {error or 'in time'}") from error
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"what answers on {socket} is not Jobtrail: {error}") from error


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
