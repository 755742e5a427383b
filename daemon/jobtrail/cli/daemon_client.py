"""Asks the daemons of one command's choice, with the client of the REST API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from jobtrail.cli.whom import Place
from jobtrail.client_calls import ApiError, Caller, Unreachable

T = TypeVar("T")
AnyCaller = TypeVar("AnyCaller", bound=Caller)
ANSWER_SECONDS = 15.0
BUSY = 429
BUSY_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)


async def first_answer(
    places: Sequence[Place], client: type[AnyCaller], question: Callable[[AnyCaller], Awaitable[T]]
) -> T:
    """The first answer there is. Raises ApiError for a refusal, Unreachable where nobody answers who is a daemon.

    What is written needs one event id for all of `places`, so that what was taken once is not taken again.
    """
    problems = []
    for place in places:
        async with place.client(client, seconds=ANSWER_SECONDS) as one:
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
