"""TLS of the commands and of the client for Python: by whom a server must be known, and the certificate it is shown.

A certificate and its key are read once, when the client is made.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from pathlib import Path

import msgspec

from jobtrail.domain.errors import ConfigError

MAX_PEM_BYTES = 1 << 20
ONLY_HTTPS = "a certificate is shown over https:// alone"
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_MISMATCH = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"})


class OwnCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate of the caller's and what named it; without a `key_file` its own file holds the key too."""

    cert_file: str | Path
    key_file: str | Path | None = None
    cert_named_by: str = "cert_file"
    key_named_by: str = "key_file"

    def load_into(self, context: ssl.SSLContext) -> None:
        """Show it to servers that ask for one. Raises ConfigError naming the file that is wrong, and how it must be."""
        self._check_files()
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except ssl.SSLError as error:
            raise self._unusable(error) from error
        except (OSError, ValueError) as error:
            raise ConfigError(*self._of_key(f"cannot be used: {error}")) from error

    def _check_files(self) -> None:
        mode, content = _read(self.cert_file, self.cert_named_by)
        if not _CERTIFICATE.search(content):
            raise ConfigError(self.cert_named_by, f"{self.cert_file} holds no certificate in PEM")
        if self.key_file is not None:
            mode, content = _read(self.key_file, self.key_named_by)
        if not _KEY.search(content):
            wanted = "" if self.key_file else f"; add it there, or name the file that holds it with {self.key_named_by}"
            raise ConfigError(*self._of_key(f"holds no private key in PEM{wanted}"))
        if mode & 0o027:
            raise ConfigError(*self._of_key(f"has mode {mode:04o}, so others can get at the key; use 0600 or 0640"))

    def _of_key(self, problem: str) -> tuple[str, str]:
        """What named the file of the key, and a sentence about that file."""
        if self.key_file is None:
            return self.cert_named_by, f"{self.cert_file} {problem}"
        return self.key_named_by, f"{self.key_file} {problem}"

    def _unusable(self, error: ssl.SSLError) -> ConfigError:
        if error.reason in _MISMATCH:
            other = f"of {self.cert_file}" if self.key_file else "before it"
            return ConfigError(*self._of_key(f"holds a key that does not belong to the certificate {other}"))
        both = self.cert_file if self.key_file is None else f"{self.cert_file} and its key {self.key_file}"
        return ConfigError(self.cert_named_by, f"{both} cannot be used: {error.reason or error}")


def tls_context(ca_file: str | Path | None, *, named_by: str = "ca_file") -> ssl.SSLContext:
    """Checks certificate and host name, by the certificates of a file, else by those that the system trusts.

    Raises ConfigError, with what named the file.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigError(named_by, f"{ca_file} holds no certificates in PEM") from error
    except OSError as error:
        raise ConfigError(named_by, f"{ca_file} cannot be read: {error.strerror}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read(path: str | Path, named_by: str) -> tuple[int, bytes]:
    """A file's mode and content. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe would wait for ever
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(named_by, f"{path} is not a regular file")
            return stat.S_IMODE(status.st_mode), os.read(descriptor, MAX_PEM_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(named_by, f"{path} cannot be read: {error.strerror}") from error


def _no_password() -> str:
    """An encrypted key would make OpenSSL ask at the terminal."""
    raise ValueError("the key is encrypted; give one that is not")
