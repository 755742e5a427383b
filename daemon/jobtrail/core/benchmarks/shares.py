"""How much each user may report: what anybody may send must not fill the spool or keep the daemon busy."""

from __future__ import annotations

import math

from jobtrail.core.ports import Clock
from jobtrail.domain.errors import TooManyReports

SECONDS_PER_REPORT = 0.5  # two a second
BURST = 20
PLAIN_BYTES = 65_536  # a report up to this size costs no more
BYTES_PER_SECOND = 262_144
_MOST_BOOKED = BURST * SECONDS_PER_REPORT


class ReportShares:
    """Books time for each user: a report costs half a second and more when it is large, and ten seconds are credit."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._booked_until: dict[int, float] = {}  # uid -> monotonic time until which the share is used up

    def book(self, uid: int) -> None:
        """Take one report off the share of `uid`. Raises TooManyReports."""
        now = self._clock.monotonic()
        self._booked_until = {user: until for user, until in self._booked_until.items() if until > now}
        until = self._booked_until.get(uid, now) + SECONDS_PER_REPORT
        if until - now > _MOST_BOOKED:
            raise TooManyReports(uid, math.ceil(until - now - _MOST_BOOKED))
        self._booked_until[uid] = until

    def charge(self, uid: int, size_bytes: int) -> None:
        """Take off what a report that was admitted costs for its size."""
        until = max(self._booked_until.get(uid, 0.0), self._clock.monotonic())
        self._booked_until[uid] = until + max(0, size_bytes - PLAIN_BYTES) / BYTES_PER_SECOND
