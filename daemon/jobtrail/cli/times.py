"""Times as people type them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
ALLOWED = "a time such as 2026-11-21, 2026-11-21T08:00, or an age such as 90m, 12h, 7d"


def moment(text: str | None, option: str) -> datetime | None:
    """A point in time, local where no zone is given. Raises typer.BadParameter naming the option and allowed forms."""
    if text is None:
        return None
    try:
        if age := re.fullmatch(r"(\d{1,6})([smhdw])", text, re.ASCII):
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:  # the latter before the year 1, as 999999w
        raise typer.BadParameter(f"{text!r} is not {ALLOWED}", param_hint=option) from error
