"""The file that `--web.config.file` of Prometheus and its exporters names: TLS, users, headers.

Format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. Every key of it is known
here; what Python's TLS cannot do as Go's does is refused by name instead of being left out silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from jobtrail.domain.errors import ConfigError

SETTING = "http.web_config_file"
VERSIONS = ("TLS12", "TLS13")
NO_CERTIFICATE, IF_GIVEN, REQUIRED = "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
CLIENT_AUTH = (NO_CERTIFICATE, IF_GIVEN, REQUIRED)
UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert")
HEADERS = (
    "Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options", "X-XSS-Protection",
    "Strict-Transport-Security",
)  # fmt: skip
# Go's names (https://pkg.go.dev/crypto/tls#CipherSuites) and OpenSSL's (openssl-ciphers(1)).
CIPHERS: Mapping[str, str] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
TLS13_CIPHERS = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
CURVES: Mapping[str, str] = {
    "CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519",
}  # fmt: skip
BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
LEAST_COST, MOST_COST = 4, 16  # of bcrypt; at 16 a password takes some seconds
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ms|us|s|m|h))+|0")
_UNIT_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class TlsServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section tls_server_config. Paths are relative to the file's own directory."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    client_auth_type: str = NO_CERTIFICATE
    client_allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the key, which may stand in the file itself."""
        return f"TlsServer(cert_file={self.cert_file!r}, client_auth_type={self.client_auth_type!r})"


class HttpServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section http_server_config. HTTP/1.1 is all that is spoken, which every client of HTTP/2 speaks too."""

    http2: bool = True
    headers: dict[str, str] = {}


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section rate_limit: a token every `interval`, of which `burst` are kept."""

    interval: str = "0"
    burst: int = 0

    @property
    def seconds(self) -> float:
        """The interval; 0 limits nothing."""
        parts = re.findall(r"(\d+(?:\.\d*)?)(us|ms|s|m|h)", self.interval)
        return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


class WebConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: dict[str, str] = {}
    rate_limit: RateLimit = RateLimit()

    def __repr__(self) -> str:
        """Without passwords' hashes."""
        return f"WebConfig(tls_server_config={self.tls_server_config!r}, users={len(self.basic_auth_users)})"


def parse(text: bytes, path: Path) -> WebConfig:
    """The settings in `text`. Raises ConfigError naming the key; never with anything of a secret in it."""
    try:
        tree = yaml.safe_load(text.decode("utf-8")) or {}
    except UnicodeDecodeError as error:
        raise ConfigError(SETTING, f"{path} is not UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(SETTING, f"{path} is not YAML{_line(error)}") from None  # its own words quote the line
    try:
        config = msgspec.convert(_without_empty(tree), WebConfig)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise ConfigError(SETTING, f"{path}: `{place.strip('.`') or 'file'}`: {problem}") from None
    _check_users(config, path)
    _check_headers(config.http_server_config, path)
    if not _DURATION.fullmatch(config.rate_limit.interval) or config.rate_limit.burst < 0:
        raise ConfigError(
            SETTING, f"{path}: `rate_limit`: interval is a time such as 1s or 500ms, burst a number from 0"
        )
    if config.tls_server_config is not None:
        _check_tls(config.tls_server_config, path)
    return config


def _without_empty(tree: Any) -> Any:
    """A heading above nothing but comments is a section that is not there."""
    if not isinstance(tree, dict):
        return tree
    return {key: value for key, value in tree.items() if value is not None}


def _line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f": line {mark.line + 1}, column {mark.column + 1}"


def _check_users(config: WebConfig, path: Path) -> None:
    for name, digest in config.basic_auth_users.items():
        found = BCRYPT.fullmatch(digest)
        if found is None or not LEAST_COST <= int(found[1]) <= MOST_COST:
            allowed = f"with a cost of {LEAST_COST} to {MOST_COST}, as `jobtrail web-user NAME` makes it"
            raise ConfigError(SETTING, f"{path}: `basic_auth_users.{name}` must be a bcrypt hash {allowed}")
        if not name or ":" in name or not name.isprintable():
            raise ConfigError(SETTING, f"{path}: `basic_auth_users`: {name!r} is no user name: visible, without colons")


def _check_headers(section: HttpServer, path: Path) -> None:
    for name, value in section.headers.items():
        if name not in HEADERS:
            known = ", ".join(HEADERS)
            raise ConfigError(SETTING, f"{path}: `http_server_config.headers.{name}` is not known; there are {known}")
        if not value.isprintable():
            raise ConfigError(SETTING, f"{path}: `http_server_config.headers.{name}` must be one line")


def _check_tls(tls: TlsServer, path: Path) -> None:
    def refuse(key: str, why: str) -> ConfigError:
        return ConfigError(SETTING, f"{path}: `tls_server_config.{key}` {why}")

    for name in ("cert", "key", "client_ca"):
        if getattr(tls, name) and getattr(tls, f"{name}_file"):
            raise refuse(f"{name}_file", f"and {name} are both given; one of them will do")
    for name in ("cert", "key"):
        if not getattr(tls, name) and not getattr(tls, f"{name}_file"):
            raise refuse(f"{name}_file", "is missing")
    for name in ("min_version", "max_version"):
        if getattr(tls, name) not in VERSIONS:
            raise refuse(name, f"must be one of {', '.join(VERSIONS)}; older ones are not secure (RFC 8996)")
    if VERSIONS.index(tls.min_version) > VERSIONS.index(tls.max_version):
        raise refuse("min_version", f"{tls.min_version} is above max_version {tls.max_version}")
    _check_client_auth(tls, refuse)
    unknown = [name for name in tls.cipher_suites if name not in CIPHERS and name not in TLS13_CIPHERS]
    if unknown:
        raise refuse("cipher_suites", f"{unknown[0]} is not known; there are {', '.join(CIPHERS)}")
    if any(name not in CURVES for name in tls.curve_preferences) or len(tls.curve_preferences) > 1:
        raise refuse("curve_preferences", f"may name one of {', '.join(CURVES)}: Python's TLS takes a single one")


def _check_client_auth(tls: TlsServer, refuse: Any) -> None:
    has_ca = bool(tls.client_ca or tls.client_ca_file)
    if tls.client_auth_type in UNVERIFIED:
        raise refuse("client_auth_type", f"{tls.client_auth_type} believes any certificate; use {REQUIRED}")
    if tls.client_auth_type not in CLIENT_AUTH:
        raise refuse("client_auth_type", f"must be one of {', '.join(CLIENT_AUTH)}")
    if tls.client_auth_type != NO_CERTIFICATE and not has_ca:
        raise refuse("client_ca_file", f"is missing: {tls.client_auth_type} needs to know who signs certificates")
    if tls.client_auth_type == NO_CERTIFICATE and has_ca:
        raise refuse("client_ca_file", f"has no effect without client_auth_type: {REQUIRED} or {IF_GIVEN}")
    if tls.client_allowed_sans and tls.client_auth_type != REQUIRED:
        raise refuse("client_allowed_sans", f"needs client_auth_type: {REQUIRED}")
