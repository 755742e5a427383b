"""Tokens with names and scopes, of which the file holds digests alone."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from enum import StrEnum
from pathlib import Path

import msgspec

from jobtrail.domain.errors import ConfigError

SETTING = "http.tokens_file"
MAX_FILE_BYTES = 1_048_576
CERTIFICATE = "certificate"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class Scope(StrEnum):
    """What somebody may do over TCP; none includes another."""

    READ = "read"  # of all jobs, benchmarks and the trail
    WRITE = "write"  # decide about benchmarks, keep jobs by hand
    ADMIN = "admin"  # what is about the daemon itself and the keeping of the trail


class Principal(msgspec.Struct, frozen=True):
    """Somebody who is known."""

    name: str
    scopes: frozenset[Scope] = frozenset()


class NamedToken(msgspec.Struct, frozen=True):
    """A line of the file. Without a digest it is for the client certificate that has the name."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes | None


class NamedTokens:
    """The lines `NAME SCOPE[,SCOPE] sha256:HEX` and `NAME SCOPE[,SCOPE] certificate`, read anew when they change.

    A token is 256 random bits (`jobtrail web-token NAME` makes one), so one round of SHA-256 is enough to hide it.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._seen: tuple[int, int, int, int, int] | None = None
        self._tokens: tuple[NamedToken, ...] = ()

    @property
    def is_set(self) -> bool:
        """Whether there is to be such a file."""
        return self._path is not None

    def load(self) -> None:
        """Read the file, if there is to be one. Raises ConfigError."""
        if self._path is not None:
            self._current(self._path)

    def holder(self, token: str) -> Principal | None:
        """Whose token this is. Compares with every line, so that the time tells nothing. Raises ConfigError."""
        if self._path is None:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for one in self._current(self._path):
            if one.digest is not None and hmac.compare_digest(one.digest, digest):
                found = Principal(one.name, one.scopes)
        return found

    def certified(self, names: frozenset[str]) -> Principal | None:
        """Who shows a certificate with one of `names`; None where no line is for any. Raises ConfigError."""
        if self._path is None:
            return None
        lines = [one for one in self._current(self._path) if one.digest is None and one.name in names]
        if not lines:
            return None
        return Principal(lines[0].name, frozenset[Scope]().union(*(one.scopes for one in lines)))

    def _current(self, path: Path) -> tuple[NamedToken, ...]:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                _check_safe(path, status)
                mark = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
                if mark != self._seen:
                    self._tokens = _parse(path, file.read(MAX_FILE_BYTES))
                    self._seen = mark
        except OSError as error:
            raise ConfigError(SETTING, f"{path} cannot be read: {error.strerror}") from error
        return self._tokens


def _check_safe(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(SETTING, f"{path} is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(SETTING, f"{path} belongs to uid {status.st_uid}; it must be root's or the daemon's own")
    if status.st_mode & 0o022:
        raise ConfigError(SETTING, f"{path} can be changed by others than its owner; use 0600 or 0640")


def _parse(path: Path, content: bytes) -> tuple[NamedToken, ...]:
    """Raises ConfigError naming the line, and never what stands in it: it may be a token by mistake."""
    tokens = []
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        problem = ConfigError(
            SETTING,
            f"{path}: line {number} must be `NAME SCOPES sha256:HEX` or `NAME SCOPES {CERTIFICATE}`; scopes are "
            f"{', '.join(Scope)}, several with commas; `jobtrail web-token NAME` makes such a line",
        )
        if len(words) != 3 or not _NAME.fullmatch(words[0]):
            raise problem
        try:
            scopes = frozenset(Scope(word) for word in words[1].split(","))
        except ValueError:
            raise problem from None
        digest = _DIGEST.fullmatch(words[2])
        if digest is None and words[2] != CERTIFICATE:
            raise problem
        tokens.append(NamedToken(words[0], scopes, None if digest is None else bytes.fromhex(digest[1])))
    return tuple(tokens)
