"""Who asks, and of whose jobs they may read.

Over TCP nobody is known, on a loopback port as little as elsewhere: who asks shows a token and reads of every job. On a
Unix socket the kernel names who asks: root and Slurm's user read of every job, other users of their own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import msgspec
from aiohttp import web

from jobtrail.adapters.http.refusals import forbidden
from jobtrail.adapters.http.senders import OVERFLOW_UID, Gate, Sender
from jobtrail.adapters.http.tokens import Door
from jobtrail.adapters.http.turns import Turns
from jobtrail.core.ports import Row


class Reader(msgspec.Struct, frozen=True):
    """Who asks; without a sender, somebody who showed the token."""

    sender: Sender | None

    @property
    def only_uid(self) -> int | None:
        """The user whose jobs alone are to be told of; None is all. Raises Refused."""
        if self.sender is None or self.sender.trusted:
            return None
        if self.sender.uid == OVERFLOW_UID:
            raise forbidden(f"uid {OVERFLOW_UID} stands for any user who is unknown here")
        return self.sender.uid

    def check_may_read(self, job: Row) -> None:
        """Raises Refused, unless this row of `jobs` is for the reader."""
        if self.sender is not None and not self.sender.trusted and not self.sender.is_user(job["uid"]):
            raise forbidden(f"uid {self.sender.uid} may read only their own jobs; {job['job_id']} is of another user")


class Readers:
    """Tells who asks, and lets each user ask one question at a time."""

    def __init__(self, *, gate: Gate, token: Door, turns: Turns) -> None:
        self._gate = gate
        self._token = token
        self._turns = turns

    def reader(self, request: web.Request) -> Reader:
        """Who asks. Raises Refused for one over TCP without the token."""
        sender = self._gate.local_peer(request)
        if sender is None:
            self._token.check(request)
        return Reader(sender)

    def turn(self, reader: Reader) -> AbstractContextManager[None]:
        """The reader's turn. Raises Refused while they are being answered already."""
        return self._turns.taken(reader.sender)
