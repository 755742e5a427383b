"""What a node shows its servers, and by what it knows them: read anew when the files change."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path

from jobtrail.adapters.server_link.settings import LinkSettings
from jobtrail.domain.errors import StoreUnavailable

MAX_TOKEN_BYTES = 4096
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,1024}")  # the alphabet of RFC 6750, section 2.1
Marks = tuple[tuple[int, ...], ...]


class CredentialsUnusableError(StoreUnavailable):
    """A file of the link's settings cannot be used now; it may be made good without a restart."""


class Credentials:
    """The files of one node. Blocking, but only a moment, and only when they change."""

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None
        self._context_marks: Marks | None = None
        self._token = ""
        self._token_marks: Marks | None = None

    def context(self) -> ssl.SSLContext:
        """How servers are known, and this node to them. Raises CredentialsUnusableError.

        A change is complete when the last of its files is: while certificate and key do not belong together, those
        from before are used on.
        """
        settings = self._settings
        named = {
            "link.ca_file": settings.ca_file,
            "link.certificate_file": settings.certificate_file,
            "link.key_file": settings.key_file,
        }
        try:
            marks = _marks(named)
            if self._context is None or marks != self._context_marks:
                self._context, self._context_marks = self._made(), marks
        except CredentialsUnusableError:
            if self._context is None:
                raise
        return self._context

    def headers(self) -> Mapping[str, str]:
        """What each request shows beside a certificate. Raises CredentialsUnusableError."""
        path = self._settings.token_file
        if not path:
            return {}
        marks = _marks({"link.token_file": path})
        if marks != self._token_marks:
            self._token, self._token_marks = _token(Path(path)), marks
        return {"Authorization": f"Bearer {self._token}"}

    def redacted(self, answer: bytes) -> bytes:
        """A server's answer without the token, should it ever repeat it."""
        return answer.replace(self._token.encode(), b"<token>") if self._token else answer

    def _made(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca_file or None)  # checks certificate and host name
        except (ssl.SSLError, OSError) as error:
            raise CredentialsUnusableError(
                f"link.ca_file: {settings.ca_file} holds no certificates: {error}"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate_file:
            try:
                # An encrypted key would make OpenSSL ask at the terminal.
                context.load_cert_chain(settings.certificate_file, settings.key_file or None, password=_no_password)
            except (ssl.SSLError, OSError, ValueError) as error:
                message = f"link.certificate_file: {settings.certificate_file} and its key cannot be used: {error}"
                raise CredentialsUnusableError(message) from error
        return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not")


def _marks(named: Mapping[str, str]) -> Marks:
    """What tells whether files are the same as before."""
    found: list[tuple[int, ...]] = []
    for setting, path in named.items():
        if not path:
            continue
        try:
            status = Path(path).stat()
        except OSError as error:
            raise CredentialsUnusableError(f"{setting}: {path} cannot be read: {error.strerror}") from error
        found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)


def _token(path: Path) -> str:
    """The token in a file, which nobody else may read or write. Raises CredentialsUnusableError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            _check_safe(path, os.fstat(descriptor))
            text = os.read(descriptor, MAX_TOKEN_BYTES + 1).decode("ascii", "replace").strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CredentialsUnusableError(f"link.token_file: {path} cannot be read: {error.strerror}") from error
    if not _TOKEN.fullmatch(text):
        raise CredentialsUnusableError(
            f"link.token_file: {path} must hold one line of 16 to 1024 letters, digits and ._~+/=- and nothing else"
        )
    return text


def _check_safe(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CredentialsUnusableError(f"link.token_file: {path} is not a regular file")
    if status.st_mode & 0o027 or status.st_uid not in (0, os.geteuid()):
        problem = "must be root's or the daemon's own, with mode 0600 or 0640"
        raise CredentialsUnusableError(f"link.token_file: {path} {problem}")
