"""Asks the daemon on this machine through its Unix sockets, with the client of the REST API."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from jobtrail.client_calls import ApiError, Caller, Unreachable
from jobtrail.config import Config

T = TypeVar("T")
AnyCaller = TypeVar("AnyCaller", bound=Caller)
ANSWER_SECONDS = 15.0
BUSY = 429
BUSY_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
SOCKET_VARIABLE = "JOBTRAIL_POKE_SOCKET"


def sockets(config: Config) -> list[str]:
    """Where a daemon may answer: where JOBTRAIL_POKE_SOCKET says, else the socket open to all users, else the other."""
    if named := os.environ.get(SOCKET_VARIABLE):
        return [named]
    return [path for path in (config.poke_socket, config.http.socket) if path]


async def first_answer(
    paths: Sequence[str], client: type[AnyCaller], question: Callable[[AnyCaller], Awaitable[T]]
) -> T:
    """The first answer there is. Raises ApiError for a refusal, Unreachable where nobody answers who is a daemon.

    What is written needs one event id for all of `paths`, so that what was taken once is not taken again.
    """
    problems = []
    for path in paths:
        async with client(socket=path, timeout_seconds=ANSWER_SECONDS) as one:
            try:
                return await _patiently(one, question)
            except Unreachable as error:
                problems.append(str(error))
    raise Unreachable("; ".join(problems) or "no socket of the daemon is set: http.socket, http.poke_socket")


async def _patiently(client: AnyCaller, question: Callable[[AnyCaller], Awaitable[T]]) -> T:
    """The answer; asked again for some seconds where another question of this user's is being answered."""
    for pause_seconds in BUSY_PAUSES_SECONDS:
        try:
            return await question(client)
        except ApiError as error:
            if error.status != BUSY:
                raise
        await asyncio.sleep(pause_seconds)
    return await question(client)
