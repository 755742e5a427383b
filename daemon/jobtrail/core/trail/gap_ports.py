"""What was given up for want of room and is not on record yet, and where that is kept."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What was given up and is not on record yet."""

    event_id: str  # of the record that will tell it, so that it is told once
    since_us: int
    noted_us: int
    shed: dict[str, int]
    goes_on: bool = False  # more may have been given up after `noted_us`
    uncounted_since_us: int | None = None  # as in the record


class TallyLog(Protocol):
    """Keeps one tally through the end of the daemon."""

    async def read(self) -> Tally | None:
        """The one that was kept last; None before the first. Raises OSError."""
        ...

    async def write(self, tally: Tally) -> None:
        """Keep this one in the other's place, on the disk when this returns. Raises OSError."""
        ...
