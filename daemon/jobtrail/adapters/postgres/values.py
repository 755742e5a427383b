"""Values as PostgreSQL holds them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def to_datetime(time_us: int | None) -> datetime | None:
    """A time in µs since 1970 as a datetime in UTC, exact to the microsecond."""
    return None if time_us is None else EPOCH + timedelta(microseconds=time_us)


def to_seconds(duration_us: int | None) -> float | None:
    """A duration in µs as seconds."""
    return None if duration_us is None else duration_us / 1e6


def from_millionths(number: int | None) -> float | None:
    """A number of millionths (µJ, µg) as one of units."""
    return None if number is None else number / 1e6


def encode(row: Any) -> str:
    """A row, or several, as JSON text for a jsonb parameter."""
    return msgspec.json.encode(row).decode()
