"""Reads what stands after the `?` of a request; whatever is wrong there is named with the form that is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from aiohttp import web

from jobtrail.adapters.http.refusals import Refused
from jobtrail.domain.events import check_time_us

LAST_RUN = 2**31 - 1  # of the column
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
_NUMBER = re.compile(r"[0-9]{1,18}")


def invalid(field: str, problem: str) -> Refused:
    """400 that names the part of the address that is wrong."""
    return Refused(400, "validation_error", "invalid", f"{field}: {problem}", details={"field": field})


def check_parameters(request: web.Request, known: Collection[str]) -> None:
    """Raises Refused for a parameter that is not known or comes twice: one misspelt would silently not filter."""
    for name in request.query:
        if name not in known:
            raise invalid(name[:64], f"is no parameter here; there are {', '.join(sorted(known))}")
        if len(request.query.getall(name)) > 1:
            raise invalid(name, "may be given once")


def name(request: web.Request, field: str) -> str | None:
    """A name, None where it is not given. Raises Refused."""
    text = request.query.get(field)
    if text is not None and not _NAME.fullmatch(text):
        raise invalid(field, "must be 1 to 255 visible characters without spaces")
    return text


def text(request: web.Request, field: str) -> str | None:
    """A name that may have spaces in it, None where it is not given. Raises Refused."""
    value = request.query.get(field)
    if value is not None and not (1 <= len(value) <= 255 and value.isprintable()):
        raise invalid(field, "must be 1 to 255 visible characters")
    return value


def number(request: web.Request, field: str, *, least: int, most: int) -> int | None:
    """A whole number, None where it is not given. Raises Refused."""
    text = request.query.get(field)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise invalid(field, f"must be a whole number from {least} to {most}, not {text[:32]!r}")
    return int(text)


def moment(request: web.Request, field: str) -> datetime | None:
    """A time between the years 2000 and 2100, None where it is not given. Raises Refused, InvalidEvent."""
    text = request.query.get(field)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))  # a + that nobody encoded is a space in an address
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise invalid(field, f"must be a time with its zone, such as 2026-11-21T08:00:00Z, not {text[:40]!r}")
    check_time_us(field, (found - EPOCH) // timedelta(microseconds=1))
    return found


def no_database() -> Refused:
    """503 where the daemon keeps its records in no database."""
    return Refused(503, "unavailable", "unavailable", "this daemon has no database: ask a server, or set database.url")
