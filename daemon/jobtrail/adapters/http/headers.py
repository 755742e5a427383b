"""The two headers that identify an event."""

from __future__ import annotations

import re

from aiohttp import web

from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import check_time_us

EVENT_ID = "Jobtrail-Event-Id"
EVENT_TIME = "Jobtrail-Event-Time"

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?")


def one_header(request: web.Request, name: str) -> str | None:
    """The value of a header. Raises InvalidEvent when it is there more than once."""
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise InvalidEvent(name, "is given more than once")
    return values[0] if values else None


def event_id(text: str) -> str:
    """A UUID in its canonical lower case. Raises InvalidEvent."""
    if not _UUID.fullmatch(text):
        raise InvalidEvent(EVENT_ID, "must be a UUID such as 6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21")
    return text.lower()


def event_time_us(text: str) -> int:
    """µs since the epoch, of Unix seconds with up to nine decimals; beyond µs it is cut off. Raises InvalidEvent."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise InvalidEvent(EVENT_TIME, "must be Unix seconds with up to nine decimals, such as 1767225600.123456789")
    return check_time_us(EVENT_TIME, int(match[1]) * 1_000_000 + int((match[2] or "").ljust(6, "0")[:6]))
