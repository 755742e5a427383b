"""Who we are to slurmrestd: nothing on a Unix socket with rest_auth/local, else a user name and a JSON web token.

Slurm 22.05 wants both headers and refuses `Authorization: Bearer`; later releases take both too.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from jobtrail.domain.errors import SlurmDenied

MAX_TOKEN_BYTES = 65_536
_TOKEN = re.compile(r"[!-~]+")
# `scontrol token` prints the token behind this, and so files hold it.
_PREFIX = "SLURM_JWT="


class TokenSource:
    """The token as it is now. A file is read again when it is another or has changed; blocking, but only a moment."""

    def __init__(self, *, user: str, token: str = "", token_file: str = "") -> None:
        self._user = user
        self._token = token
        self._file = Path(token_file) if token_file else None
        self._seen: tuple[int, ...] | None = None
        self.notice: str | None = None  # a sentence for people about the token's file

    def __repr__(self) -> str:
        return f"TokenSource(user={self._user!r}, token_file={str(self._file or '')!r})"

    @property
    def is_used(self) -> bool:
        """Whether requests bear a token."""
        return bool(self._token) or self._file is not None

    def headers(self) -> Mapping[str, str]:
        """The headers of a request. Raises SlurmDenied when the token's file cannot be read or holds no token."""
        if self._file is not None:
            self._read_anew(self._file)
        named = {"X-SLURM-USER-NAME": self._user} if self._user else {}
        return named | {"X-SLURM-USER-TOKEN": self._token} if self._token else named

    def look(self) -> None:
        """Read the token's file now; `notice` then tells what is wrong with it: it may still come."""
        try:
            self.headers()
        except SlurmDenied as error:
            self.notice = str(error)

    def redacted(self, text: str) -> str:
        """`text` without the token, should a server ever repeat it."""
        return text.replace(self._token, "<token>") if self._token else text

    def expired_at(self, now: float) -> int | None:
        """When the token ended, by what it says of itself; None when it says nothing or goes on."""
        expiry = _expiry(self._token)
        return expiry if expiry is not None and expiry <= now else None

    def _read_anew(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise SlurmDenied(f"the token file {path} cannot be read: {error.strerror}") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise SlurmDenied(f"the token file {path} is no regular file")
            state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if state != self._seen:
                self._token = _token_in(path, os.read(descriptor, MAX_TOKEN_BYTES + 1))
                self._seen = state
            open_to_others = found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP
        finally:
            os.close(descriptor)
        self.notice = (
            f"the token file {path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}); make it 0600 or 0640"
            if open_to_others
            else None
        )


def _token_in(path: Path, content: bytes) -> str:
    token = content.decode("ascii", "replace").strip().removeprefix(_PREFIX)
    if len(content) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
        raise SlurmDenied(f"the token file {path} must hold one token, as `scontrol token` prints it, and nothing else")
    return token


def _expiry(token: str) -> int | None:
    """The claim `exp` of a JSON web token (RFC 7519, section 4.1.4)."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    return int(expiry) if isinstance(expiry, int | float) and not isinstance(expiry, bool) else None
