"""The web configuration that holds now: its file and the files it names are read anew when they change."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import stat
from pathlib import Path

import msgspec

from jobtrail.adapters.http.tls import files_of, make_context
from jobtrail.adapters.http.web_config import NO_CERTIFICATE, SETTING, TlsServer, WebConfig, parse
from jobtrail.domain.errors import ConfigError

MAX_FILE_BYTES = 1_048_576
READS = 3
_log = logging.getLogger("jobtrail.http")

Mark = tuple[int, int, int, int, int]


class Live(msgspec.Struct, frozen=True):
    """What holds now."""

    config: WebConfig = WebConfig()
    context: ssl.SSLContext | None = None  # None: no TLS
    generation: int = 0
    trust: bytes = b""  # digest of all that a client's certificate is checked against

    @property
    def takes_certificates(self) -> bool:
        """Whether clients may be known by certificates, with or without having to be."""
        tls = self.config.tls_server_config
        return tls is not None and tls.client_auth_type != NO_CERTIFICATE


class WebFile:
    """Reads the file. A new one that cannot be used changes nothing: what held goes on, and `problem` says why."""

    def __init__(self, path: str, *, crl_file: str = "") -> None:
        """An empty path: neither TLS nor users."""
        self._path = Path(path) if path else None
        self._crl_file = crl_file
        self._live = Live()
        self._seen: tuple[tuple[str, Mark | None], ...] = ()
        self.problem: str | None = None

    def load(self) -> None:
        """Read it for the first time. Raises ConfigError when it cannot be used."""
        if self._path is None:
            if self._crl_file:
                raise ConfigError("http.client_crl_file", f"has no effect without {SETTING}")
            return
        self._read_whole(self._path)

    def now(self) -> Live:
        """What holds now, after a look whether the files have changed: a few calls of stat(2)."""
        if self._path is None:
            return self._live
        if self._marks() != self._seen:
            try:
                self._read_whole(self._path)
            except ConfigError as error:
                self.problem = str(error)
                _log.error("the web configuration has changed and cannot be used; the one before goes on: %s", error)
            else:
                self.problem = None
                _log.warning("the web configuration was read anew")
        return self._live

    def _read_whole(self, path: Path) -> None:
        """Read until no file changed meanwhile, nor which files there are; what goes on changing is left for the next
        look. Raises ConfigError."""
        for _ in range(READS):
            marks = self._marks()
            self._seen = marks
            self._live = self._read(path)
            if self._marks() == marks:
                break

    def _read(self, path: Path) -> Live:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                _check_safe(path, status)
                text = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(SETTING, f"{path} cannot be read: {error.strerror}") from error
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(SETTING, f"{path} is longer than {MAX_FILE_BYTES} bytes")
        config = parse(text, path)
        tls = config.tls_server_config
        if tls is not None and tls.key and status.st_mode & 0o007:
            raise ConfigError(SETTING, f"{path} holds a key and anybody can get at it; use 0600 or 0640")
        if tls is None and self._crl_file:
            raise ConfigError("http.client_crl_file", f"has no effect without tls_server_config in {path}")
        context = None if tls is None else make_context(tls, path.parent, crl_file=self._crl_file)
        if self._live.context is not None and context is None:
            raise ConfigError(SETTING, f"{path} has no tls_server_config any more; TLS is given up by a restart alone")
        if self._live.context is None and self._live.generation and context is not None:
            raise ConfigError(SETTING, f"{path} has a tls_server_config now; TLS begins with a restart")
        trust = b"" if tls is None else _trust(tls, path.parent, self._crl_file)
        return Live(config, context, self._live.generation + 1, trust)

    def _marks(self) -> tuple[tuple[str, Mark | None], ...]:
        assert self._path is not None
        tls = self._live.config.tls_server_config
        paths = [self._path] + ([] if tls is None else files_of(tls, self._path.parent, self._crl_file))
        return tuple((str(path), _mark(path)) for path in paths)


def _trust(tls: TlsServer, directory: Path, crl_file: str) -> bytes:
    """Changes when another certificate may be good than before. Raises ConfigError."""
    digest = hashlib.sha256(repr((tls.client_auth_type, tls.client_ca, tls.client_allowed_sans)).encode())
    named = ([directory / tls.client_ca_file] if tls.client_ca_file else []) + ([Path(crl_file)] if crl_file else [])
    for file in named:
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise ConfigError(SETTING, f"{file} cannot be read: {error.strerror}") from error
    return digest.digest()


def _mark(path: Path) -> Mark | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _check_safe(path: Path, status: os.stat_result) -> None:
    """Others may read hashes, as the exporters let them; but who can write here lets in whom they like."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(SETTING, f"{path} is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(SETTING, f"{path} belongs to uid {status.st_uid}; it must be root's or the daemon's own")
    if status.st_mode & 0o022:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise ConfigError(SETTING, f"{path} has mode {mode}, so others can change it; use 0600 or 0640")
