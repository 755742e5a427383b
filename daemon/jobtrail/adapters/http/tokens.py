"""The tokens by which those who come over TCP are known. They are never logged and never part of a message."""

from __future__ import annotations

import hmac
import os
import re
import stat
from pathlib import Path
from typing import Protocol

from aiohttp import web

from jobtrail.adapters.http.headers import one_header
from jobtrail.adapters.http.refusals import Note, Refused, forbidden, unauthorized
from jobtrail.domain.errors import ConfigError

MAX_FILE_BYTES = 4096
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,1024}")  # the alphabet of RFC 6750, section 2.1
BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +(\S+)")


class Door(Protocol):
    """Lets in those who may over TCP."""

    def check(self, request: web.Request) -> None:
        """Raises Refused, unless who asks may."""
        ...


class TokenFile:
    """The token in a file, read anew when the file changes."""

    def __init__(self, path: str, *, setting: str, unset: str, missing: str) -> None:
        """`setting` names the file; `unset` and `missing` tell senders what to do without a file, without a token."""
        self._path = Path(path) if path else None
        self._setting = setting
        self._unset = unset
        self._missing = missing
        self._seen: tuple[int, int, int, int, int] | None = None
        self._token = ""

    def load(self) -> None:
        """Read the file, if there is to be one. Raises ConfigError when it cannot be used."""
        if self._path is not None:
            self._current(self._path)

    @property
    def is_set(self) -> bool:
        """Whether there is to be such a token at all."""
        return self._path is not None

    def is_shown(self, token: str) -> bool:
        """Whether `token` is the one in the file; not while the file cannot be used."""
        if self._path is None:
            return False
        try:
            held = self._current(self._path)
        except ConfigError:
            return False
        return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), held.encode())

    def check(self, request: web.Request) -> None:
        """Raises Refused, unless the request shows the token."""
        if self._path is None:
            raise forbidden(self._unset)
        header = one_header(request, "Authorization")
        if header is None:
            raise unauthorized(self._missing)
        try:
            token = self._current(self._path)
        except ConfigError as error:
            raise Refused(503, "unavailable", "unavailable", str(error), headers={"Retry-After": "30"}) from error
        shown = BEARER.fullmatch(header)
        if shown is None or not hmac.compare_digest(shown[1].encode("utf-8", "surrogateescape"), token.encode()):
            raise forbidden(f"this is not the token in {self._setting}", Note("wrong_token"))

    def _current(self, path: Path) -> str:
        """The token as the file has it now. Raises ConfigError."""
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                self._check_safe(path, status)
                mark = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
                if mark != self._seen:
                    self._token = self._parse(path, file.read(MAX_FILE_BYTES + 1))
                    self._seen = mark
        except OSError as error:
            raise ConfigError(self._setting, f"{path} cannot be read: {error.strerror}") from error
        return self._token

    def _check_safe(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(self._setting, f"{path} is not a regular file")
        if status.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                self._setting, f"{path} belongs to uid {status.st_uid}; it must be root's or the daemon's own"
            )
        if status.st_mode & 0o027:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigError(
                self._setting, f"{path} has mode {mode}, so others can get at the token; use 0600 or 0640"
            )

    def _parse(self, path: Path, content: bytes) -> str:
        text = content.decode("ascii", "replace").strip()
        if not _TOKEN.fullmatch(text):
            raise ConfigError(
                self._setting,
                f"{path} must hold one line of 16 to 1024 letters, digits and ._~+/=- and nothing else, "
                "as `openssl rand -hex 32` prints it",
            )
        return text


def hook_token(path: str) -> TokenFile:
    """The token of slurmctld's hooks."""
    return TokenFile(
        path,
        setting="slurm.hook_token_file",
        unset="no hook may post over TCP while slurm.hook_token_file is not set",
        missing="a hook over TCP needs `Authorization: Bearer <token>`",
    )


def read_token(path: str, *, users_socket: str) -> TokenFile:
    """The token of those who may read of every job."""
    aside = f"; a job's own user needs no token on the Unix socket {users_socket}" if users_socket else ""
    return TokenFile(
        path,
        setting="http.read_token_file",
        unset="jobs are not told of over TCP while http.read_token_file is not set: name a file there that holds a "
        f"token, and send `Authorization: Bearer <token>`{aside}",
        missing=f"over TCP, who asks of a job needs `Authorization: Bearer <token>`{aside}",
    )


def write_token(path: str) -> TokenFile:
    """The token of those who may decide about every benchmark's run."""
    return TokenFile(
        path,
        setting="http.write_token_file",
        unset="nothing can be decided over TCP while http.write_token_file is not set; use a Unix socket",
        missing="a decision over TCP needs `Authorization: Bearer <token>`",
    )


def admin_token(path: str) -> TokenFile:
    """The token of those who look after the daemon and the trail's keeping."""
    return TokenFile(
        path,
        setting="http.admin_token_file",
        unset="this is for who looks after the daemon: name a file in http.admin_token_file that holds a token, or ask "
        "as root on the Unix socket",
        missing="this needs `Authorization: Bearer <token>` with the token in http.admin_token_file",
    )
