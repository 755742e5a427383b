"""Who asks, and of whose jobs they may read.

Over TCP nobody is known, on a loopback port as little as elsewhere: who asks shows a token and reads of every job. On a
Unix socket the kernel names who asks: root and Slurm's user read of every job, other users of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import msgspec
from aiohttp import web

from jobtrail.adapters.http.refusals import Refused, forbidden
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
        if self.sender is None or self.sender.trusted or self.sender.reads_all:
            return None
        if self.sender.uid == OVERFLOW_UID:
            raise _anybody()
        return self.sender.uid

    def uid_of(self, accounts: str | Sequence[str] | None) -> int | None:
        """As `only_uid`, where jobs of `accounts` alone are asked for: who may read of all of those needs no more."""
        uid = self.only_uid
        asked = {accounts} if isinstance(accounts, str) else set(accounts or ())
        return None if uid is None or (self.sender and asked and asked <= self.sender.accounts) else uid

    def check_may_read(self, job: Row) -> None:
        """Raises Refused, unless this row of `jobs` is for the reader."""
        if self.sender is not None and not may_read(self.sender, job):
            raise forbidden(f"uid {self.sender.uid} may read only their own jobs; {job['job_id']} is of another user")


def _anybody() -> Refused:
    return forbidden(f"uid {OVERFLOW_UID} stands for any user who is unknown here")


def may_read(sender: Sender, job: Row) -> bool:
    """Whether a row of `jobs` is for this user: it is the user's own, or of those that the user was given to read."""
    if sender.trusted or sender.reads_all or sender.is_user(job["uid"]):
        return True
    return job.get("account") is not None and job["account"] in sender.accounts


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
        elif sender.uid == OVERFLOW_UID:
            raise _anybody()
        return Reader(sender)

    def turn(self, reader: Reader) -> AbstractContextManager[None]:
        """The reader's turn. Raises Refused while they are being answered already."""
        return self._turns.taken(reader.sender)
