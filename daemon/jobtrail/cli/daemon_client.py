"""Talks to the daemon on this machine through its Unix socket."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from jobtrail.domain.errors import JobtrailError, StoreUnavailable

TIMEOUT_SECONDS = 5.0


class Refused(JobtrailError):
    """The daemon understood and said no; the message is its own."""


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
