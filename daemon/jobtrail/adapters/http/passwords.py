"""Passwords of users, held as bcrypt hashes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping

import bcrypt

from jobtrail.adapters.http.refusals import Refused
from jobtrail.adapters.http.web_config import BCRYPT

AT_ONCE = 2  # bcrypt takes a whole processor for as long as its cost says
WAITING = 32  # who comes when that many wait is told to come again
REMEMBERED = 256
MOST_BYTES = 72  # of a password, as bcrypt has it: the rest was never part of the hash
_DUMMY = "$2b${cost:02d}$" + "." * 53


class Passwords:
    """Tells whether a password is a user's, in a thread, a few at a time, and remembers those that were.

    What is remembered is a keyed digest of name, hash and password, each with its length before it, under a key of this
    process alone: two different triples never have the same digest, whatever somebody chooses them to be (as happened
    in a cache that joined them, CVE-2022-46146), and nobody can read a password from it. A wrong one is never
    remembered.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def good(self, users: Mapping[str, str], name: str, password: bytes) -> bool:
        """Whether `password` is that of `name` in `users`. An unknown name takes as long as one with the dearest hash.

        Raises Refused (503) while too many passwords are being checked.
        """
        digest = users.get(name) or _DUMMY.format(cost=_dearest(users))
        mark = self._mark(name.encode("utf-8", "surrogateescape"), digest.encode(), password)
        if name in users and mark in self._good:
            self._good.move_to_end(mark)
            return True
        matches = await self._checked(password, digest)
        if not matches or name not in users:
            return False
        self._good[mark] = None
        while len(self._good) > REMEMBERED:
            self._good.popitem(last=False)
        return True

    async def _checked(self, password: bytes, digest: str) -> bool:
        if self._waiting >= WAITING:
            message = "too many passwords are being checked"
            raise Refused(503, "unavailable", "busy", message, headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(_matches, password[:MOST_BYTES], digest.encode())
        finally:
            self._waiting -= 1

    def _mark(self, *parts: bytes) -> bytes:
        joined = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.new(self._key, joined, hashlib.sha256).digest()


def _matches(password: bytes, digest: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, digest)
    except ValueError:  # a NUL in the password, of which no hash can be made
        return False


def _dearest(users: Mapping[str, str]) -> int:
    found = (BCRYPT.fullmatch(digest) for digest in users.values())
    return max((int(match[1]) for match in found if match is not None), default=10)
