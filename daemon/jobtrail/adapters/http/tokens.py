"""The token by which slurmctld's hooks are known over TCP. It is never logged and never part of a message."""

from __future__ import annotations

import hmac
import os
import re
import stat
from pathlib import Path

from aiohttp import web

from jobtrail.adapters.http.headers import one_header
from jobtrail.adapters.http.refusals import Refused, forbidden, unauthorized
from jobtrail.domain.errors import ConfigError

SETTING = "slurm.hook_token_file"
MAX_FILE_BYTES = 4096
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,1024}")  # the alphabet of RFC 6750, section 2.1
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +(\S+)")


class HookToken:
    """The token in a file, read anew when the file changes."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._seen: tuple[int, int, int, int, int] | None = None
        self._token = ""

    def load(self) -> None:
        """Read the file, if there is to be one. Raises ConfigError when it cannot be used."""
        if self._path is not None:
            self._current(self._path)

    def check(self, request: web.Request) -> None:
        """Raises Refused, unless the request shows the token."""
        if self._path is None:
            raise forbidden(f"no hook may post over TCP while {SETTING} is not set")
        header = one_header(request, "Authorization")
        if header is None:
            raise unauthorized("a hook over TCP needs `Authorization: Bearer <token>`")
        try:
            token = self._current(self._path)
        except ConfigError as error:
            raise Refused(503, "unavailable", "unavailable", str(error), headers={"Retry-After": "30"}) from error
        shown = _BEARER.fullmatch(header)
        if shown is None or not hmac.compare_digest(shown[1].encode("utf-8", "surrogateescape"), token.encode()):
            raise forbidden(f"this is not the token in {SETTING}")

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
            raise ConfigError(SETTING, f"{path} cannot be read: {error.strerror}") from error
        return self._token

    @staticmethod
    def _check_safe(path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(SETTING, f"{path} is not a regular file")
        if status.st_uid not in (0, os.geteuid()):
            raise ConfigError(SETTING, f"{path} belongs to uid {status.st_uid}; it must be root's or the daemon's own")
        if status.st_mode & 0o027:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigError(SETTING, f"{path} has mode {mode}, so others can get at the token; use 0600 or 0640")

    @staticmethod
    def _parse(path: Path, content: bytes) -> str:
        text = content.decode("ascii", "replace").strip()
        if not _TOKEN.fullmatch(text):
            raise ConfigError(
                SETTING,
                f"{path} must hold one line of 16 to 1024 letters, digits and ._~+/=- and nothing else, "
                "as `openssl rand -hex 32` prints it",
            )
        return text
