"""Ed25519 keys in files. `cryptography` is loaded when a key is used, so that nobody waits for it who has none."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from jobtrail.domain.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SETTING = "audit.signing_key_file"
PUBLIC_SETTING = "audit.public_key_file"
MAX_FILE_BYTES = 4096
PEM_BLOCK = re.compile(rb"-----BEGIN .*?-----END [^\n]*-----\n?", re.DOTALL)


class FileSigner:
    """A Signer with the private key of a file in PEM, as `jobtrail audit keygen` and `openssl genpkey` write it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id(key.public_key())

    @classmethod
    def load(cls, path: Path) -> FileSigner:
        """The key in `path`. Raises ConfigError when it cannot be used, or others could have read it."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        content = _read_private(path)
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError(SETTING, f"{path} holds no private key in PEM without a password: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(SETTING, f"{path} holds a key of another kind; it must be Ed25519")
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes."""
        return self._key.sign(message)

    def public_key(self) -> Ed25519PublicKey:
        """The key's public part."""
        return self._key.public_key()

    def public_pem(self) -> bytes:
        """The public key in PEM."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        return self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


class PublicKeys:
    """The keys whose signatures are believed."""

    def __init__(self, keys: dict[str, Ed25519PublicKey]) -> None:
        self._keys = keys

    @classmethod
    def of(cls, signer: FileSigner) -> PublicKeys:
        """The public part of a signer's key alone."""
        return cls({signer.key_id: signer.public_key()})

    @classmethod
    def load(cls, paths: list[Path]) -> PublicKeys:
        """Public keys of files in PEM, one or more in each. Raises ConfigError."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

        keys: dict[str, Ed25519PublicKey] = {}
        for path in paths:
            try:
                content = path.read_bytes()
                held = [load_pem_public_key(block) for block in PEM_BLOCK.findall(content) or [content]]
            except OSError as error:
                raise ConfigError(PUBLIC_SETTING, f"{path} cannot be read: {error.strerror}") from error
            except ValueError as error:
                raise ConfigError(PUBLIC_SETTING, f"{path} holds no public key in PEM: {error}") from error
            for key in held:
                if not isinstance(key, Ed25519PublicKey):
                    raise ConfigError(PUBLIC_SETTING, f"{path} holds a key of another kind; it must be Ed25519")
                keys[key_id(key)] = key
        return cls(keys)

    def check(self, key_id: str | None, signature: bytes, message: bytes) -> str | None:
        """What is wrong with a signature; None when it is right."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        key = None if key_id is None else self._keys.get(key_id)
        if key is None:
            return f"it is signed with key {key_id}, which is none of those that are believed"
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return f"its signature is not that of key {key_id}"
        return None


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def generate(path: Path) -> FileSigner:
    """Make a new key in `path`, which nobody else can read; its public part goes to the same name with `.pub`.

    Raises FileExistsError rather than overwriting a key, OSError.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_new(path, pem, 0o600)
    signer = FileSigner(key)
    _write_new(Path(f"{path}.pub"), signer.public_pem(), 0o644)
    return signer


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            _check_safe(path, os.fstat(file.fileno()))
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(SETTING, f"{path} cannot be read: {error.strerror}") from error


def _check_safe(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(SETTING, f"{path} is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(SETTING, f"{path} belongs to uid {status.st_uid}; it must be root's or the daemon's own")
    if status.st_mode & 0o027:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise ConfigError(SETTING, f"{path} has mode {mode}, so others can get at the key; use 0600 or 0640")
