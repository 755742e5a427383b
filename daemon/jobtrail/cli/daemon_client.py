"""Talks to the daemon on this machine through its Unix sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from jobtrail.config import Config
from jobtrail.domain.errors import JobtrailError, StoreUnavailable

TIMEOUT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
BUSY = 429
BUSY_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
SOCKET_VARIABLE = "JOBTRAIL_POKE_SOCKET"


class Refused(JobtrailError):
    """The daemon understood and said no; the message is its own."""


class Reply(msgspec.Struct, frozen=True):
    """What the daemon said."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises StoreUnavailable when it is none: that was no daemon of ours."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise StoreUnavailable(f"what answers is not Jobtrail: {error}") from error


def sockets(config: Config) -> list[str]:
    """Where a daemon may answer: where JOBTRAIL_POKE_SOCKET says, else the socket open to all users, else the other."""
    if named := os.environ.get(SOCKET_VARIABLE):
        return [named]
    return [path for path in (config.poke_socket, config.http.socket) if path]


async def first_reply(
    config: Config,
    method: str,
    path: str,
    *,
    words: Mapping[str, str] | None = None,
    body: dict[str, Any] | None = None,
    accept: str = "application/json",
) -> tuple[Reply | None, str]:
    """The first reply there is, or None and why there is none."""
    problems = []
    for socket in sockets(config):
        try:
            return await _ask_patiently(socket, method, path, words or {}, body, accept), ""
        except StoreUnavailable as error:
            problems.append(str(error))
    return None, "; ".join(problems)


async def _ask_patiently(
    socket: str, method: str, path: str, words: Mapping[str, str], body: dict[str, Any] | None, accept: str
) -> Reply:
    """The reply; asked again for some seconds where another question of this user's is being answered."""
    for pause_seconds in BUSY_PAUSES_SECONDS:
        reply = await _ask(socket, method, path, words, body, accept)
        if reply.status != BUSY:
            return reply
        await asyncio.sleep(pause_seconds)
    return await _ask(socket, method, path, words, body, accept)


async def _ask(
    socket: str, method: str, path: str, words: Mapping[str, str], body: dict[str, Any] | None, accept: str
) -> Reply:
    """Raises StoreUnavailable when nobody answers who is a daemon."""
    timeout, headers = aiohttp.ClientTimeout(total=ANSWER_SECONDS), {"Accept": accept}
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket), timeout=timeout) as session,
            session.request(method, f"http://localhost{path}", params=words, json=body, headers=headers) as response,
        ):
            reply = Reply(response.status, await response.read())
            if response.content_type == "application/json":
                reply.json()
            return reply
    except aiohttp.ClientConnectorError as error:
        raise StoreUnavailable(f"no daemon answers on {socket}: {error.os_error.strerror}") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise StoreUnavailable(f"no daemon answers on {socket}: {error or 'in time'}") from error


async def post(socket_path: str, path: str, body: dict[str, Any], *, event_id: str) -> dict[str, Any]:
    """POST a JSON body and return the answer. Raises StoreUnavailable when nobody answers, Refused when told no."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket_path), timeout=timeout) as session,
            session.post(f"http://localhost{path}", json=body, headers={"Jobtrail-Event-Id": event_id}) as response,
        ):
            answer = msgspec.json.decode(await response.read(), type=dict[str, Any])
            if response.status >= 400:
                raise Refused(str(answer.get("message", response.reason)))
            return answer
    except aiohttp.ClientConnectorError as error:
        raise StoreUnavailable(f"no daemon answers on {socket_path}: {error.os_error.strerror}") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise StoreUnavailable(f"no daemon answers on {socket_path}: {error}") from error
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"what answers on {socket_path} is not Jobtrail: {error}") from error
