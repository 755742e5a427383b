"""The TLS side of a web configuration: a context of Python's `ssl`, and the names in a client's certificate."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from jobtrail.adapters.http.web_config import CIPHERS, CURVES, IF_GIVEN, REQUIRED, SETTING, TlsServer
from jobtrail.domain.errors import ConfigError

CRL_SETTING = "http.client_crl_file"
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {REQUIRED: ssl.CERT_REQUIRED, IF_GIVEN: ssl.CERT_OPTIONAL}


def files_of(tls: TlsServer, directory: Path, crl_file: str) -> list[Path]:
    """The files whose change is a change of the settings."""
    named = (tls.cert_file, tls.key_file, tls.client_ca_file)
    return [directory / name for name in named if name] + ([Path(crl_file)] if crl_file else [])


def make_context(tls: TlsServer, directory: Path, *, crl_file: str = "") -> ssl.SSLContext:
    """A server's context. Raises ConfigError naming the key, and never asks anybody for a password.

    Sessions are not resumed: a resumed one keeps the certificate it began with, which may have expired or have been
    revoked since (RFC 8446, section 4.6.1).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    if tls.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    ciphers = [CIPHERS[name] for name in tls.cipher_suites if name in CIPHERS]
    if ciphers:
        context.set_ciphers(":".join(ciphers))
    for curve in tls.curve_preferences:
        context.set_ecdh_curve(CURVES[curve])
    _load_identity(context, tls, directory)
    if tls.client_auth_type in _VERIFY:
        context.verify_mode = _VERIFY[tls.client_auth_type]
        _load_authorities(context, tls, directory, crl_file)
    elif crl_file:
        raise ConfigError(CRL_SETTING, f"has no effect without client_auth_type: {REQUIRED} or {IF_GIVEN}")
    return context


def _load_identity(context: ssl.SSLContext, tls: TlsServer, directory: Path) -> None:
    def refuse() -> NoReturn:
        raise ConfigError(
            SETTING, "`tls_server_config.key_file` is encrypted, and nobody is there to ask for its password"
        )

    with ExitStack() as stack:
        chain = str(directory / tls.cert_file) if tls.cert_file else stack.enter_context(_in_memory(tls.cert))
        key = str(directory / tls.key_file) if tls.key_file else stack.enter_context(_in_memory(tls.key))
        if tls.key_file:
            _check_private(directory / tls.key_file)
        try:
            context.load_cert_chain(chain, key, password=refuse)
        except ssl.SSLError as error:
            raise ConfigError(
                SETTING, f"`tls_server_config`: certificate and key are not usable together: {error.reason}"
            ) from None
        except OSError as error:
            raise ConfigError(
                SETTING, f"`tls_server_config`: {error.filename or tls.cert_file}: {error.strerror}"
            ) from None


def _load_authorities(context: ssl.SSLContext, tls: TlsServer, directory: Path, crl_file: str) -> None:
    try:
        if tls.client_ca:
            context.load_verify_locations(cadata=tls.client_ca)
        else:
            context.load_verify_locations(cafile=directory / tls.client_ca_file)
    except ssl.SSLError as error:
        raise ConfigError(
            SETTING, f"`tls_server_config.client_ca_file` holds no certificates: {error.reason}"
        ) from None
    except OSError as error:
        raise ConfigError(
            SETTING, f"`tls_server_config.client_ca_file`: {tls.client_ca_file}: {error.strerror}"
        ) from None
    if not crl_file:
        return
    try:
        context.load_verify_locations(cafile=crl_file)
    except ssl.SSLError as error:
        raise ConfigError(CRL_SETTING, f"{crl_file} holds no revocation list in PEM: {error.reason}") from None
    except OSError as error:
        raise ConfigError(CRL_SETTING, f"{crl_file}: {error.strerror}") from None
    if context.cert_store_stats()["crl"] == 0:
        raise ConfigError(CRL_SETTING, f"{crl_file} holds no revocation list in PEM")
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _check_private(path: Path) -> None:
    """Raises ConfigError for a key that others can read."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(SETTING, f"`tls_server_config.key_file`: {path}: {error.strerror}") from None
    if mode & 0o007:
        shown = f"{stat.S_IMODE(mode):04o}"
        raise ConfigError(
            SETTING,
            f"`tls_server_config.key_file`: {path} has mode {shown}, so anybody can get at it; use 0600 or 0640",
        )


@contextmanager
def _in_memory(pem: str) -> Iterator[str]:
    """A path where OpenSSL can read what stood in the file itself; it is on no disk."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def names_in(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The subject alternative names of a verified certificate, as `getpeercert` gives them; the subject is no name."""
    if not certificate:
        return frozenset()
    return frozenset(str(value) for _, value in certificate.get("subjectAltName", ()) if isinstance(value, str))


def host_names_in(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Of those names the host names."""
    return _names_of_kind(certificate, "DNS")


def uris_in(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Of those names the URIs."""
    return _names_of_kind(certificate, "URI")


def _names_of_kind(certificate: Mapping[str, Any] | None, wanted: str) -> frozenset[str]:
    if not certificate:
        return frozenset()
    return frozenset(value for kind, value in certificate.get("subjectAltName", ()) if kind == wanted)


def expired(certificate: Mapping[str, Any], now_seconds: float) -> bool:
    """Whether a certificate that was good when its connection began is over now."""
    return ssl.cert_time_to_seconds(certificate["notAfter"]) < now_seconds
