"""One question at a time for each user: anybody may connect to the users' socket, and nobody is to keep the others
from the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobtrail.adapters.http.refusals import Refused
from jobtrail.adapters.http.senders import Sender


class Turns:
    """Who is being answered now."""

    def __init__(self, *, most: int | None = None) -> None:
        """`most` bounds all users together."""
        self._most = most
        self._taken: set[int] = set()

    @contextmanager
    def taken(self, reader: Sender | None) -> Iterator[None]:
        """A user's turn; those who are trusted, and those over TCP, who showed a token, need none. Raises Refused."""
        if reader is None or reader.trusted:
            yield
            return
        if reader.uid in self._taken:
            message = f"uid {reader.uid} is being answered already; ask one question at a time"
            raise Refused(429, "too_many_requests", "busy", message, headers={"Retry-After": "1"})
        if self._most is not None and len(self._taken) >= self._most:
            raise Refused(503, "unavailable", "busy", "too many users are being answered", headers={"Retry-After": "1"})
        self._taken.add(reader.uid)
        try:
            yield
        finally:
            self._taken.discard(reader.uid)
