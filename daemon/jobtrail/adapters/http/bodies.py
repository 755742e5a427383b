"""Reads what a request carries, within its size and time."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from jobtrail.adapters.http.refusals import Refused, too_large, too_slow
from jobtrail.adapters.http.settings import HttpSettings


async def read_body(request: web.Request, settings: HttpSettings) -> bytes:
    """The whole body. Raises Refused when it is too large, too slow or breaks off."""
    limit, seconds = settings.max_body_bytes, settings.body_timeout_seconds
    if request.content_length is not None and request.content_length > limit:
        raise too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError as error:
        raise too_slow(seconds) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise too_large(limit) from error
    except (RequestPayloadError, ConnectionError) as error:
        raise Refused(400, "invalid_request", "invalid", "the body broke off or is wrongly chunked") from error
